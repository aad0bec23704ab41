/**
 * The sampling panel: presets, controls that act on the next token, in groups; then what could have come here (see
 * choice.js), and at the foot what else decided.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, parameters, pieces } = glassbox;
  const { el } = dom;

  const MAIN = ['temperature', 'top_k', 'top_p', 'min_p'];

  const selectedToken = () => store.tokens[store.selection.position];

  /** The settings that made the selected token; none for one that was given. */
  function recorded() {
    const token = selectedToken();
    return (glassbox.sampled(token) && store.settings[token.par]) || null;
  }

  // ---- the controls ----

  function numbers(group) {
    return parameters.NUMBERS[group].map((setting) => {
      const change = (value) => glassbox.actions.setParams({ [setting.key]: value });
      return new glassbox.slider.Slider(setting, change);
    });
  }

  function buildGroups() {
    const { Strings } = glassbox.strings;
    const breakers = new Strings('dry_breakers');
    const banned = new Strings('banned', { split: true });
    const stop = new Strings('stop', { id: 'stop-strings' });
    const contents = {
      temperature: numbers('temperature'),
      tail: numbers('tail'),
      xtc: numbers('xtc'),
      mirostat: numbers('mirostat'),
      repetition: [...numbers('repetition'), breakers],
      words: [new glassbox.bias.Bias(), banned],
      length: [...numbers('length'), stop, new glassbox.seed.Seed()],
      form: [new glassbox.grammar.Grammar()],
      order: [new glassbox.order.Order()],
    };
    return Object.entries(contents).map(([name, controls]) => new glassbox.group.Group(name, controls));
  }

  // ---- the foot: what else decided ----

  function showFoot(foot) {
    const { t } = glassbox;
    const active = parameters.activeFilters(store.params).map(glassbox.filterName);
    const rows = [
      [t('samp_seed'), String(store.seed)],
      [t('samp_max_new_tokens'), String(store.params.max_new_tokens ?? '')],
      [t('samp_stops'), [t('samp_end_token'), ...(store.params.stop || []).map(pieces.escape)].join(', ')],
      [t('samp_order_foot'), active.join(', ') || t('samp_nothing_on')],
    ];
    foot.replaceChildren(...rows.flatMap(([name, value]) => [el('span', '', name), el('b', '', value)]));
    for (const value of foot.querySelectorAll('b')) value.title = value.textContent;
  }

  // ---- the panel ----

  /** One line between the controls and the candidates: which token the controls speak of. */
  function stateText() {
    const { t } = glassbox;
    const made = recorded();
    if (store.streaming) return t('samp_next');
    if (!made || glassbox.choice.ahead) return t('samp_will');
    const same = glassbox.settingsChange(made, store.params) === '';
    return t(same ? 'samp_made' : 'samp_made_other');
  }

  class Panel {
    constructor(root) {
      this.main = numbers('main');
      this.groups = buildGroups();
      this.more = glassbox.group.disclosure('more', 'samp_more');
      this.presets = new glassbox.presets.Presets();
      this.name = el('span', 'selname num');
      this.state = el('p', 'state');
      this.foot = el('div', 'foot');
      this.choice = el('div', 'choice');
      this.panel = el('section', 'samp');
      this.place(root);
      glassbox.choice.mount(this.choice);
      this.changed = true;
      this.update = dom.debounceFrame(() => this.updateNow());
      this.more.box.addEventListener('toggle', this.update);
    }

    get controls() {
      return [...this.main, ...this.groups.flatMap(({ controls }) => controls)];
    }

    place(root) {
      const header = el('div', 'ph');
      const title = el('h2');
      title.dataset.t = 'sampling';
      title.id = 'h-sampling';
      this.panel.setAttribute('aria-labelledby', title.id);
      header.append(title, this.name);
      const body = el('div', 'scroll pad body');
      const controls = el('div', 'controls');
      this.more.body.append(...this.groups.map(({ box }) => box));
      controls.append(...this.main.map(({ box }) => box), this.more.box);
      body.append(this.presets.box, controls, this.state, this.choice, this.foot);
      this.panel.append(header, body);
      root.append(this.panel);
    }

    updateNow() {
      if (this.changed) this.showSettings();
      const token = selectedToken() || {};
      const state = { made: recorded() || {}, ignored: token.ig || [] };
      for (const slider of this.main) slider.show(state);
      if (this.more.box.open) for (const group of this.groups) group.show(state);
      this.state.textContent = stateText();
      this.panel.classList.toggle('live', store.streaming);
      this.showName();
    }

    /** What depends on the settings in force alone. */
    showSettings() {
      this.changed = false;
      this.presets.show();
      for (const group of this.groups) group.showSummary();
      const others = parameters.activeFilters(store.params).filter((name) => !MAIN.includes(name));
      this.more.remark.textContent = others.map(glassbox.filterName).join(', ');
      showFoot(this.foot);
    }

    showName() {
      const token = selectedToken();
      this.name.replaceChildren();
      if (!token) return;
      dom.mark(this.name, dom.tokenText(token));
      this.name.append(el('span', 'mut', ` ${store.selection.position}`));
    }

    translate() {
      const { panel } = this;
      const { t } = glassbox;
      this.presets.build();
      dom.translate(panel);
      for (const node of panel.querySelectorAll('[data-placeholder]')) {
        node.placeholder = t(node.dataset.placeholder);
      }
      for (const node of panel.querySelectorAll('[data-label]')) {
        node.setAttribute('aria-label', t(node.dataset.label));
      }
      for (const control of this.controls) control.translate();
      this.refresh();
    }

    refresh() {
      this.changed = true;
      this.update();
    }

    /**
     * A setting that the server refused is explained at its control, whose group opens; the one in force is shown
     * again.
     */
    onError({ text, field: key }) {
      const control = key && this.controls.find(({ frame }) => frame.key === key);
      if (!control) return;
      control.complain(text);
      for (let box = control.box.closest('details'); box; box = box.parentElement.closest('details')) {
        box.open = true;
      }
    }
  }

  glassbox.widgets.sampling = (root) => {
    const panel = new Panel(root);
    for (const topic of ['tokens', 'selection', 'state', 'choice']) glassbox.on(topic, panel.update);
    glassbox.on('params', () => panel.refresh());
    glassbox.on('hello', () => panel.translate());
    glassbox.on('error', (error) => panel.onError(error));
    glassbox.on('lang', () => panel.translate());
    panel.translate();
  };
})();

/**
 * The sampling panel: presets, sliders that act on the next token, what could have come here, and a few more
 * settings.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el, iconButton } = dom;

  const NEUTRAL = {
    temperature: 1, top_k: 0, top_p: 1, min_p: 0,
    repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0,
  };

  const PRESETS = {
    exact: { temperature: 0 },
    balanced: { temperature: 0.7, top_k: 40, top_p: 0.95, min_p: 0 },
    loose: { temperature: 1.2, top_k: 0, top_p: 1, min_p: 0.05 },
    neutral: NEUTRAL,
  };

  const off = (wordAt) => ({ word: 'samp_off', wordAt });

  const MAIN = [
    { key: 'temperature', min: 0, max: 2, step: 0.05, digits: 2, neutral: 1, word: 'samp_greedy', wordAt: 0 },
    { key: 'top_k', min: 0, max: 200, step: 1, digits: 0, neutral: 0, ...off(0) },
    { key: 'top_p', min: 0.01, max: 1, step: 0.01, digits: 2, neutral: 1, above: true, ...off(1) },
    { key: 'min_p', min: 0, max: 0.5, step: 0.01, digits: 2, neutral: 0, ...off(0) },
  ];

  const MORE = [
    { key: 'repetition_penalty', min: 0.5, max: 2, step: 0.05, digits: 2, neutral: 1, ...off(1) },
    { key: 'presence_penalty', min: -2, max: 2, step: 0.1, digits: 2, neutral: 0, ...off(0) },
    { key: 'frequency_penalty', min: -2, max: 2, step: 0.1, digits: 2, neutral: 0, ...off(0) },
    { key: 'max_new_tokens', min: 1, max: 1024, step: 1, digits: 0, neutral: 256 },
  ];

  const selectedToken = () => store.tokens[store.selection.position];

  /** The settings that made the selected token, or undefined for one that was given. */
  const recorded = () => {
    const token = selectedToken();
    return glassbox.sampled(token) ? store.settings[token.par] : undefined;
  };

  // ---- presets ----

  function buildPresets() {
    const box = el('div', 'chips');
    box.dataset.label = 'samp_presets';
    box.setAttribute('role', 'group');
    for (const [name, params] of Object.entries(PRESETS)) {
      const chip = el('button', 'chip');
      chip.type = 'button';
      chip.id = `preset-${name}`;
      chip.dataset.t = `samp_preset_${name}`;
      chip.dataset.title = `samp_preset_tip_${name}`;
      chip.addEventListener('click', () => glassbox.actions.setParams({ ...params }));
      box.append(chip);
    }
    return box;
  }

  /** A preset is pressed when its settings are in force. */
  function showPresets(box) {
    for (const chip of box.children) {
      const params = PRESETS[chip.id.slice('preset-'.length)];
      const on = Object.entries(params).every(([key, value]) => store.params[key] === value);
      chip.setAttribute('aria-pressed', String(on));
    }
  }

  // ---- seed and stop strings ----

  function field(id, node) {
    const box = el('div', 'sl field');
    box.id = id;
    const label = el('label');
    label.dataset.t = `samp_${id}`;
    label.dataset.title = `samp_tip_${id}`;
    label.htmlFor = node.id = `${id}-input`;
    const problem = el('p', 'problem');
    problem.setAttribute('role', 'alert');
    problem.hidden = true;
    box.append(label, node, problem);
    return { box, node, complain: (text) => { problem.textContent = text; problem.hidden = !text; } };
  }

  function buildSeed() {
    const input = el('input', 'num');
    input.type = 'number';
    input.min = 0;
    input.step = 1;
    const seed = field('seed', input);
    const dice = iconButton('dice', 'samp_new_seed', () => {
      seed.complain('');
      glassbox.actions.setSeed(crypto.getRandomValues(new Uint32Array(1))[0] >>> 1);
    });
    input.after(dice);
    input.addEventListener('change', () => {
      const value = input.valueAsNumber;
      const fits = Number.isSafeInteger(value) && value >= 0;
      seed.complain(fits ? '' : glassbox.t('samp_bad_seed'));
      if (fits) glassbox.actions.setSeed(value);
      else input.value = store.seed;
    });
    return { ...seed, show: () => document.activeElement !== input && (input.value = store.seed) };
  }

  const ESCAPES = { '\\n': '\n', '\\t': '\t', '\\\\': '\\' };
  const readStop = (line) => line.replace(/\\[nt\\]/g, (pair) => ESCAPES[pair]);
  const readStops = (text) => text.split('\n').map(readStop).filter((stop) => stop !== '');
  const writeStop = (stop) => stop.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/\t/g, '\\t');

  function buildStops() {
    const area = el('textarea');
    area.rows = 2;
    area.spellcheck = false;
    area.dataset.placeholder = 'samp_stop_hint';
    const stop = field('stop-strings', area);
    area.addEventListener('change', () => glassbox.actions.setParams({ stop: readStops(area.value) }));
    const show = () => {
      if (document.activeElement !== area) area.value = (store.params.stop || []).map(writeStop).join('\n');
    };
    return { ...stop, show };
  }

  // ---- the foot: what else decided ----

  function showFoot(foot) {
    const { t } = glassbox;
    const stops = (store.params.stop || []).map(writeStop);
    const rows = [
      [t('samp_seed'), String(store.seed)],
      [t('samp_max_new_tokens'), String(store.params.max_new_tokens ?? '')],
      [t('samp_stops'), [t('samp_end_token'), ...stops].join(', ')],
      [t('samp_order'), t('samp_order_list')],
    ];
    foot.replaceChildren(...rows.flatMap(([name, value]) => [el('span', '', name), el('b', '', value)]));
    for (const value of foot.querySelectorAll('b')) value.title = value.textContent;
  }

  // ---- the panel ----

  /** One line between the sliders and the candidates: which token the sliders speak of. */
  function stateText() {
    const { t } = glassbox;
    const made = recorded();
    if (store.streaming) return t('samp_next');
    if (!made) return t('samp_will');
    const same = Object.keys(NEUTRAL).every((key) => made[key] === store.params[key]);
    return t(same ? 'samp_made' : 'samp_made_other');
  }

  function buildMore(parts) {
    const more = el('details', 'more-settings');
    const summary = el('summary');
    const label = el('span');
    label.dataset.t = 'samp_more';
    summary.append(dom.icon('right'), label);
    more.append(summary, ...parts);
    return more;
  }

  class Panel {
    constructor(root) {
      const change = (patch) => glassbox.actions.setParams(patch);
      const make = (setting) => new glassbox.slider.Slider(setting, change);
      this.main = MAIN.map(make);
      this.extra = MORE.map(make);
      this.seed = buildSeed();
      this.stops = buildStops();
      this.presets = buildPresets();
      this.name = el('span', 'selname num');
      this.state = el('p', 'state');
      this.foot = el('div', 'foot');
      this.distribution = new glassbox.distribution.Distribution();
      this.panel = el('section', 'samp');
      this.place(root);
      this.update = dom.debounceFrame(() => this.updateNow());
    }

    place(root) {
      const header = el('div', 'ph');
      const title = el('h2');
      title.dataset.t = 'sampling';
      title.id = 'h-sampling';
      this.panel.setAttribute('aria-labelledby', title.id);
      header.append(title, this.name);
      const body = el('div', 'scroll pad body');
      const nodes = (list) => list.map((slider) => slider.nodes.box);
      const sliders = el('div', 'sliders');
      sliders.append(...nodes(this.main), buildMore([...nodes(this.extra), this.seed.box, this.stops.box]));
      body.append(this.presets, sliders, this.state, this.distribution.box, this.foot);
      this.panel.append(header, body);
      root.append(this.panel);
    }

    updateNow() {
      const made = recorded() || {};
      for (const slider of [...this.main, ...this.extra]) slider.show(made[slider.setting.key]);
      showPresets(this.presets);
      this.seed.show();
      this.stops.show();
      this.state.textContent = stateText();
      this.panel.classList.toggle('live', store.streaming);
      this.distribution.update();
      this.showName();
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
      dom.translate(panel);
      for (const node of panel.querySelectorAll('[data-title]')) node.title = t(node.dataset.title);
      for (const node of panel.querySelectorAll('[data-placeholder]')) {
        node.placeholder = t(node.dataset.placeholder);
      }
      for (const node of panel.querySelectorAll('[data-label]')) {
        node.setAttribute('aria-label', t(node.dataset.label));
      }
      for (const slider of [...this.main, ...this.extra]) slider.translate();
      showFoot(this.foot);
      this.update();
    }

    /** A setting that the server refused is explained at its control; the one in force is shown again. */
    onError({ text, field: key }) {
      const slider = [...this.main, ...this.extra].find(({ setting }) => setting.key === key);
      if (slider) slider.complain(text);
      if (key === 'seed') this.seed.complain(text);
      if (key === 'stop') this.stops.complain(text);
    }
  }

  glassbox.widgets.sampling = (root) => {
    const panel = new Panel(root);
    for (const topic of ['tokens', 'selection', 'state', 'hello']) glassbox.on(topic, panel.update);
    glassbox.on('params', () => {
      showFoot(panel.foot);
      panel.update();
    });
    glassbox.on('error', (error) => panel.onError(error));
    glassbox.on('lang', () => panel.translate());
    panel.translate();
  };
})();

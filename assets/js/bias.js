/**
 * Logit bias: what is typed is shown as the tokens it becomes, as it stands and with a space before it (as inside a
 * sentence); choosing one adds it, with a slider of its own. Of several tokens the last one is raised or lowered,
 * where those before it stand already.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, field, pieces, parameters } = glassbox;
  const { el } = dom;

  const WAIT_MS = 150; // after the last key
  const FIRST = 5; // bias of a text that is added
  const SCALE = { min: -100, max: 100, step: 0.5, digits: 1, curve: 'signed', neutral: 0 };

  const keyOf = (tokens) => tokens.join(' ');

  /** What tokens say; their numbers when it could not be asked. */
  async function named(ids) {
    try {
      return await pieces.named(ids);
    } catch {
      return ids.map((id) => [id, `#${id}`]); // the bias acts all the same
    }
  }

  const plain = async (ids) => (await named(ids)).map(([, text]) => dom.marked(text)).join('');

  class Bias {
    constructor() {
      this.frame = new field.Field('logit_bias');
      this.box = this.frame.box;
      this.box.classList.add('strings');
      const entry = glassbox.strings.buildEntry('logit_bias-input', () => this.addTyped());
      this.input = entry.input;
      this.input.dataset.placeholder = 'samp_bias_hint';
      this.input.setAttribute('aria-describedby', 'logit_bias-problem');
      this.frame.label.htmlFor = this.input.id;
      this.ways = el('div', 'ways');
      this.ways.hidden = true;
      this.rows = el('div', 'biases');
      this.made = el('p', 'made');
      this.sliders = [];
      this.frame.fill(entry.row, this.ways, this.rows, this.made);
      this.listen();
    }

    listen() {
      let timer = 0;
      this.input.addEventListener('input', () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.offer(), WAIT_MS);
      });
      this.frame.reset.addEventListener('click', () => {
        this.input.focus();
        this.set([]);
      });
    }

    get value() {
      return store.params.logit_bias || [];
    }

    set(list) {
      this.complain('');
      glassbox.actions.setParams({ logit_bias: list });
    }

    // ---- adding ----

    /** The tokens that the typed text becomes: as it is and, unless it begins with one, after a space. */
    async splits() {
      const text = pieces.unescape(this.input.value);
      if (text === '') return [];
      const texts = /^\s/.test(text) ? [text] : [text, ` ${text}`];
      return Promise.all(texts.map(pieces.split));
    }

    async offer() {
      const typed = this.input.value;
      try {
        const splits = await this.splits();
        if (typed !== this.input.value) return;
        this.complain('');
        this.ways.replaceChildren(...splits.map((tokens) => this.way(tokens)));
        this.ways.hidden = !splits.length;
      } catch (error) {
        this.complain(error.message);
      }
    }

    way(tokens) {
      const button = el('button', 'way');
      button.type = 'button';
      const ids = el('span', 'mut num', tokens.map(([id]) => id).join(' '));
      button.append(dom.icon('add'), pieces.draw(el('span', 'ptx'), tokens), ids);
      button.addEventListener('click', () => this.add(tokens));
      return button;
    }

    async addTyped() {
      if (this.input.value === '') return this.complain(glassbox.t('samp_empty_string'));
      try {
        const [first] = await this.splits();
        return first && this.add(first);
      } catch (error) {
        return this.complain(error.message);
      }
    }

    add(tokens) {
      const ids = tokens.map(([id]) => id);
      this.input.value = '';
      this.ways.hidden = true;
      this.input.focus();
      if (!this.value.some(([others]) => keyOf(others) === keyOf(ids))) this.set([...this.value, [ids, FIRST]]);
    }

    // ---- the list ----

    biasOf(key) {
      const found = this.value.find(([ids]) => keyOf(ids) === key);
      return found ? found[1] : undefined;
    }

    change(key, bias) {
      this.set(this.value.map(([ids, old]) => [ids, keyOf(ids) === key ? bias : old]));
    }

    row([ids], i) {
      const key = keyOf(ids);
      const setting = { ...SCALE, key: `bias-${i}`, name: glassbox.t('samp_bias_of', key) };
      const slider = new glassbox.slider.Slider(setting, (bias) => this.change(key, bias), () => this.biasOf(key));
      const remove = dom.iconButton('close', 'samp_remove', () => {
        this.input.focus();
        this.set(this.value.filter(([others]) => keyOf(others) !== key));
      });
      slider.box.append(remove);
      this.nameRow(slider, remove, ids);
      return { slider, key };
    }

    /** Says in a row which tokens it is about, for eyes and for screen readers. */
    async nameRow(slider, remove, ids) {
      const tokens = await named(ids);
      const text = tokens.map(([, piece]) => dom.marked(piece)).join('');
      slider.rename(glassbox.t('samp_bias_of', text));
      pieces.draw(slider.frame.label, tokens);
      remove.title = glassbox.t('samp_remove', text);
      remove.setAttribute('aria-label', remove.title);
    }

    /** Rows are made anew only when other tokens are in the list, so that a slider can be dragged. */
    showRows() {
      const keys = this.value.map(([ids]) => keyOf(ids)).join();
      if (keys === this.keys) return;
      this.keys = keys;
      this.sliders = this.value.map((entry, i) => this.row(entry, i));
      this.rows.replaceChildren(...this.sliders.map(({ slider }) => slider.box));
    }

    show({ made, ignored }) {
      const skipped = ignored.includes('logit_bias');
      const other = made.logit_bias && !parameters.same(made.logit_bias, this.value) ? made.logit_bias : null;
      const shown = JSON.stringify([this.value, other, skipped, store.streaming && skipped]);
      if (shown === this.shown) return;
      this.shown = shown;
      this.frame.showRest(this.value);
      this.frame.showIgnored(skipped);
      this.showRows();
      for (const { slider, key } of this.sliders) {
        const before = (made.logit_bias || []).find(([ids]) => keyOf(ids) === key);
        slider.show({ made: before ? { [slider.setting.key]: before[1] } : {}, ignored: [] });
      }
      this.made.hidden = !other;
      if (other) this.showMade(other);
    }

    async showMade(list) {
      const { t } = glassbox;
      const texts = await Promise.all(list.map(([ids]) => plain(ids)));
      const parts = list.map(([, bias], i) => `${texts[i]} ${bias > 0 ? '+' : ''}${bias}`);
      this.made.textContent = t('samp_made_with', parts.join('  ') || t('samp_nothing_listed'));
    }

    complain(text) {
      this.frame.complain(text);
      this.input.setAttribute('aria-invalid', String(Boolean(text)));
    }

    translate() {
      this.frame.translate();
      this.shown = this.keys = null;
    }
  }

  glassbox.bias = { Bias };
})();

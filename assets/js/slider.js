/**
 * One numeric setting: label, slider, number box, a tick for the value that made the selected token, and a
 * message when what was typed is no value. Both inputs hold the setting in force, whatever the slider's scale;
 * neither is ever cleared by a mistake.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, scale, field, parameters } = glassbox;
  const { el } = dom;

  const THUMB = 14;
  const PAGE = 10; // presses of an arrow in one of Page Up
  const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: PAGE, PageDown: -PAGE };
  const KEYS_STOPPED = [...Object.keys(STEPS), 'Home', 'End', ' ', '.', 'r', '?', '[', ']'];

  /**
   * @typedef {object} Setting
   * @property {string} key name in the parameters and id of the control
   * @property {number} min of the slider; the number box takes what the server allows
   * @property {number} max
   * @property {number} step
   * @property {number} digits shown after the point
   * @property {'log'|'signed'} [curve] a scale that is not linear, see scale.js
   * @property {number} [low] smallest value above 0 on a logarithmic scale
   * @property {number} [neutral] value that does nothing; a double click goes there, else to the default
   * @property {string} [word] string shown in place of `wordAt`
   * @property {number} [wordAt]
   * @property {string} [name] of something that is no parameter
   */

  /** What may be typed: the server's limits, else the slider's own ends. */
  function limitsOf({ key, min, max }) {
    const known = store.limits[key];
    if (Array.isArray(known)) return known;
    return known ? [known.min ?? min, known.max ?? max] : [min, max];
  }

  /** Left edge of a mark for `value`, under the middle of the slider's thumb. */
  const along = (setting, value) =>
    `calc(${scale.at(setting, value)} * (100% - ${THUMB}px) + ${THUMB / 2}px)`;

  /** The number typed, or the string that says why it is none. */
  function parse(setting, number, name) {
    const [low, high] = limitsOf(setting);
    const value = number.valueAsNumber;
    const whole = setting.digits === 0;
    const fits = Number.isFinite(value) && value >= low && value <= high && !(whole && value % 1);
    if (fits && !(setting.above && value <= low)) return { value };
    const key = whole ? 'samp_bad_whole' : setting.above ? 'samp_bad_above' : 'samp_bad_number';
    return { problem: glassbox.t(key, name, low, high) };
  }

  /** As many digits as the value has, at least those of the setting. */
  function written(value, { digits }) {
    const [mantissa, exponent = '0'] = String(value).split('e');
    const own = (mantissa.split('.')[1] || '').length - Number(exponent);
    return value.toFixed(Math.max(digits, Math.min(7, own)));
  }

  function input(type, setting) {
    const node = el('input');
    const range = type === 'range';
    node.type = type;
    node.min = range ? setting.min : '';
    node.max = range ? setting.max : '';
    node.step = range && !setting.curve ? setting.step : 'any';
    node.setAttribute('aria-describedby', `${setting.key}-problem`);
    // the page's own keys (Space, arrows, r) must not act while a control is used
    node.addEventListener('keydown', (event) => KEYS_STOPPED.includes(event.key) && event.stopPropagation());
    return node;
  }

  function build(setting, frame) {
    const nodes = {
      range: input('range', setting), number: input('number', setting), tick: el('u'), knob: el('i', 'knob'),
      word: el('span', 'word'), track: el('div', 'rg'), value: el('div', 'nv'),
    };
    nodes.number.id = frame.label.htmlFor = `${setting.key}-number`;
    nodes.tick.hidden = true;
    nodes.track.append(nodes.range, nodes.tick, ...(setting.curve ? [nodes.knob] : []));
    nodes.track.classList.toggle('curved', Boolean(setting.curve));
    nodes.value.append(nodes.number, nodes.word);
    frame.fill(nodes.track, nodes.value);
    return nodes;
  }

  class Slider {
    /**
     * @param {Setting} setting
     * @param {(value: number) => void} change called at each input
     * @param {() => number} [read] the value in force
     */
    constructor(setting, change, read = () => store.params[setting.key]) {
      Object.assign(this, { setting, change, read });
      this.frame = new field.Field(setting.key, { name: setting.name });
      this.nodes = build(setting, this.frame);
      this.box = this.frame.box;
      this.typing = false;
      this.listen();
      if (setting.curve) this.bend();
    }

    listen() {
      const { range, number } = this.nodes;
      range.addEventListener('input', () => this.set(range.valueAsNumber));
      number.addEventListener('input', () => this.typed());
      number.addEventListener('blur', () => this.leave());
      number.addEventListener('keydown', (event) => event.key === 'Enter' && this.leave());
      this.frame.reset.addEventListener('click', () => this.rest(range));
      this.box.addEventListener('dblclick', ({ target }) => {
        if (target !== number && !this.frame.reset.contains(target)) this.rest();
      });
    }

    /** Pointer and arrows follow the curve; the range input itself keeps the true value. */
    bend() {
      const { track, range } = this.nodes;
      const move = ({ clientX }) => {
        const { left, width } = track.getBoundingClientRect();
        this.set(scale.valueAt(this.setting, (clientX - left - THUMB / 2) / (width - THUMB)));
      };
      track.addEventListener('mousedown', (event) => event.preventDefault());
      track.addEventListener('pointerdown', (event) => {
        if (event.button !== 0) return;
        track.setPointerCapture(event.pointerId);
        range.focus();
        move(event);
      });
      track.addEventListener('pointermove', (event) => track.hasPointerCapture(event.pointerId) && move(event));
      range.addEventListener('keydown', (event) => {
        if (!(event.key in STEPS)) return;
        event.preventDefault();
        this.set(scale.nudged(this.setting, this.read(), STEPS[event.key]));
      });
    }

    /** Back to the value that does nothing, or to the default; `focus` takes the focus of a button that goes. */
    rest(focus) {
      const value = this.setting.neutral ?? field.restOf(this.setting.key);
      if (focus) focus.focus();
      if (value !== undefined) this.set(value);
    }

    set(value) {
      this.typing = false;
      this.complain('');
      this.change(value);
    }

    /**
     * While a number is being typed, what is a value acts at once and nothing is said yet of an empty box.
     */
    typed() {
      this.typing = true;
      const { number } = this.nodes;
      const { value, problem } = parse(this.setting, number, this.frame.name);
      const empty = number.value === '' && !number.validity.badInput;
      this.complain(empty ? '' : problem || '');
      if (!problem) this.change(value);
    }

    /** Leaves the box: what is no value is said, and the setting in force comes back. */
    leave() {
      if (!this.typing) return;
      const { problem } = parse(this.setting, this.nodes.number, this.frame.name);
      this.typing = false;
      this.complain(problem || '');
      this.showValue();
    }

    complain(text) {
      this.frame.complain(text);
      this.nodes.number.setAttribute('aria-invalid', String(Boolean(text)));
    }

    /**
     * Shows the value in force and, when it differs, the one that made the selected token.
     * @param {{made: object, ignored: string[]}} token settings and filters not applied, of the selected token
     */
    show({ made, ignored }) {
      const { key, neutral } = this.setting;
      const value = this.read();
      const recorded = made[key];
      const acts = parameters.acts(store.params, key);
      const skipped = ignored.includes(parameters.filterOf(key));
      const shown = [value, recorded, this.typing, acts, skipped, store.streaming && skipped].join();
      if (value === undefined || shown === this.shown) return;
      this.shown = shown;
      this.frame.showRest(value, neutral);
      this.frame.showIgnored(skipped);
      this.showValue();
      this.showTick(recorded !== undefined && recorded !== value, recorded);
    }

    showValue() {
      const { setting, nodes } = this;
      const value = this.read();
      nodes.range.value = value;
      nodes.track.style.setProperty('--f', along(setting, value));
      if (!this.typing) nodes.number.value = written(value, setting);
      const word = setting.word && value === setting.wordAt;
      this.box.classList.toggle('worded', Boolean(word));
      nodes.word.textContent = word ? glassbox.t(setting.word) : '';
      nodes.range.setAttribute('aria-valuetext', word ? nodes.word.textContent : nodes.number.value);
    }

    showTick(differs, recorded) {
      const { tick } = this.nodes;
      this.box.classList.toggle('changed', differs);
      tick.hidden = !differs;
      if (differs) tick.style.left = along(this.setting, recorded);
    }

    /** Another name for something that is no parameter. */
    rename(name) {
      this.frame.given = name;
      this.translate();
    }

    /** Texts in the page's language; the tip says what the setting does and where a double click goes. */
    translate() {
      const { frame, nodes } = this;
      frame.translate();
      nodes.range.title = `${frame.tip} ${glassbox.t('samp_tip_double')}`.trim();
      nodes.range.setAttribute('aria-label', frame.name);
      nodes.number.setAttribute('aria-label', frame.name);
      this.shown = null;
    }
  }

  glassbox.slider = { Slider };
})();

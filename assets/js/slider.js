/**
 * One numeric setting: label, slider, number box, a tick for the value that made the selected token, and a
 * message when what was typed is no value. Both inputs show the setting in force; neither is ever cleared by
 * a mistake.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el } = dom;

  const THUMB = 14;
  const ARROWS = ['ArrowUp', 'ArrowDown', 'ArrowLeft', 'ArrowRight', 'Home', 'End'];
  const KEYS_STOPPED = [...ARROWS, ' ', '.', 'r', '?', '[', ']'];

  /**
   * @typedef {object} Setting
   * @property {string} key name in the parameters and id of the control
   * @property {number} min of the slider; the number box takes what the server allows
   * @property {number} max
   * @property {number} step
   * @property {number} digits shown after the point
   * @property {number} [neutral] value that does nothing; a double click goes there
   * @property {string} [word] string shown in place of `wordAt`
   * @property {number} [wordAt]
   */

  /** What may be typed: the server's limits, else the slider's own ends. */
  function limitsOf({ key, min, max }) {
    const known = store.limits[key];
    if (Array.isArray(known)) return known;
    return known ? [known.min ?? min, known.max ?? max] : [min, max];
  }

  /** Left edge of a mark for `value`, under the middle of the slider's thumb. */
  function along({ min, max }, value) {
    const share = Math.max(0, Math.min(1, (value - min) / (max - min)));
    return `calc(${share} * (100% - ${THUMB}px) + ${THUMB / 2}px)`;
  }

  /** The number typed, or the string that says why it is none. */
  function parse(setting, number) {
    const [low, high] = limitsOf(setting);
    const value = number.valueAsNumber;
    const whole = setting.digits === 0;
    const fits = Number.isFinite(value) && value >= low && value <= high && !(whole && value % 1);
    if (fits && !(setting.above && value <= low)) return { value };
    const key = whole ? 'samp_bad_whole' : setting.above ? 'samp_bad_above' : 'samp_bad_number';
    return { problem: glassbox.t(key, glassbox.t(`samp_${setting.key}`), low, high) };
  }

  function input(type, setting) {
    const node = el('input');
    node.type = type;
    node.min = type === 'range' ? setting.min : '';
    node.max = type === 'range' ? setting.max : '';
    node.step = type === 'range' ? setting.step : 'any';
    node.setAttribute('aria-describedby', `${setting.key}-problem`);
    node.dataset.label = `samp_${setting.key}`;
    // the page's own keys (Space, arrows, r) must not act while a control is used
    node.addEventListener('keydown', (event) => KEYS_STOPPED.includes(event.key) && event.stopPropagation());
    return node;
  }

  function build(setting) {
    const box = el('div', 'sl');
    box.id = setting.key;
    const label = el('label');
    label.dataset.t = `samp_${setting.key}`;
    label.htmlFor = `${setting.key}-number`;
    const nodes = {
      box, label, range: input('range', setting), number: input('number', setting),
      tick: el('u'), word: el('span', 'word'), problem: el('p', 'problem'),
    };
    nodes.number.id = `${setting.key}-number`;
    nodes.problem.id = `${setting.key}-problem`;
    nodes.problem.setAttribute('role', 'alert');
    nodes.problem.hidden = nodes.tick.hidden = true;
    const track = el('div', 'rg');
    const value = el('div', 'nv');
    track.append(nodes.range, nodes.tick);
    value.append(nodes.number, nodes.word);
    box.append(label, track, value, nodes.problem);
    return nodes;
  }

  class Slider {
    /**
     * @param {Setting} setting
     * @param {(patch: object) => void} change called with {key: value} at each input
     */
    constructor(setting, change) {
      this.setting = setting;
      this.change = (value) => change({ [setting.key]: value });
      this.nodes = build(setting);
      this.typing = false;
      this.listen();
    }

    listen() {
      const { box, range, number } = this.nodes;
      range.addEventListener('input', () => this.set(range.valueAsNumber));
      number.addEventListener('input', () => this.typed());
      number.addEventListener('blur', () => this.leave());
      number.addEventListener('keydown', (event) => event.key === 'Enter' && this.leave());
      box.addEventListener('dblclick', (event) => {
        if (event.target !== number && 'neutral' in this.setting) this.set(this.setting.neutral);
      });
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
      const { value, problem } = parse(this.setting, number);
      const empty = number.value === '' && !number.validity.badInput;
      this.complain(empty ? '' : problem || '');
      if (!problem) this.change(value);
    }

    /** Leaves the box: what is no value is said, and the setting in force comes back. */
    leave() {
      if (!this.typing) return;
      const { problem } = parse(this.setting, this.nodes.number);
      this.typing = false;
      this.complain(problem || '');
      this.shown = '';
      this.show(this.recorded);
    }

    complain(text) {
      const { problem, number, box } = this.nodes;
      problem.textContent = text;
      problem.hidden = !text;
      number.setAttribute('aria-invalid', String(Boolean(text)));
      box.classList.toggle('bad', Boolean(text));
    }

    /**
     * Shows the value in force and, when it differs, the one that made the selected token (undefined: none).
     */
    show(recorded) {
      const { setting, nodes } = this;
      const value = store.params[setting.key];
      const shown = [value, recorded, this.typing, store.lang].join();
      if (value === undefined || shown === this.shown) return;
      this.shown = shown;
      this.recorded = recorded;
      nodes.range.value = value;
      nodes.range.style.setProperty('--f', along(setting, value));
      if (!this.typing) nodes.number.value = value.toFixed(this.digitsOf(value));
      const word = setting.word && value === setting.wordAt;
      nodes.box.classList.toggle('worded', Boolean(word));
      nodes.word.textContent = word ? glassbox.t(setting.word) : '';
      nodes.range.setAttribute('aria-valuetext', word ? nodes.word.textContent : nodes.number.value);
      const differs = recorded !== undefined && recorded !== value;
      nodes.box.classList.toggle('changed', differs);
      nodes.tick.hidden = !differs;
      if (differs) nodes.tick.style.left = along(setting, recorded);
    }

    /** As many digits as the value has, at least those of the setting. */
    digitsOf(value) {
      const own = (String(value).split('.')[1] || '').length;
      return Math.max(this.setting.digits, Math.min(6, own));
    }

    /** Texts in the page's language; the tip says what the setting does and where a double click goes. */
    translate() {
      const { label, range, number } = this.nodes;
      const { key } = this.setting;
      const { t } = glassbox;
      label.textContent = t(`samp_${key}`);
      label.title = t(`samp_tip_${key}`);
      range.title = `${label.title} ${'neutral' in this.setting ? t('samp_tip_double') : ''}`.trim();
      range.setAttribute('aria-label', label.textContent);
      number.setAttribute('aria-label', label.textContent);
    }
  }

  glassbox.slider = { Slider };
})();

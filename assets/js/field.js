/**
 * What every control of the sampling panel has around it: its name, a small button back to neutral while it is off
 * it, the message when what was given is no value, and the note when its filter was not applied to the selected
 * token.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, parameters } = glassbox;
  const { el } = dom;

  /** Where a double click and the reset button go; undefined where there is no such value. */
  const restOf = (key) => (key in store.neutral ? store.neutral[key] : store.defaults[key]);

  function buildReset() {
    const button = el('button', 'reset');
    button.type = 'button';
    button.hidden = true;
    button.append(dom.icon('undo'));
    return button;
  }

  /** The part of the page that a control stands in; `key` is the parameter. */
  class Field {
    /**
     * @param {string} key
     * @param {{id?: string, name?: string, heading?: boolean}} [options] id if not the key; name if it is not the
     *   string samp_<key>; whether the control is a group of several, named by a heading
     */
    constructor(key, { id = key, name, heading = false } = {}) {
      this.key = key;
      this.given = name;
      this.box = el('div', 'sl');
      this.box.id = id;
      this.label = el(heading ? 'h3' : 'label');
      this.label.id = `${id}-label`;
      this.reset = buildReset();
      this.problem = el('p', 'problem');
      this.problem.id = `${id}-problem`;
      this.problem.setAttribute('role', 'alert');
      this.note = el('p', 'unapplied');
      this.problem.hidden = this.note.hidden = true;
      if (heading) this.group();
    }

    group() {
      this.box.classList.add('wide');
      this.box.setAttribute('role', 'group');
      this.box.setAttribute('aria-labelledby', this.label.id);
    }

    get name() {
      return this.given ?? glassbox.t(`samp_${this.key}`);
    }

    /** Puts the control's own nodes between its name and its messages. */
    fill(...nodes) {
      this.box.append(this.reset, this.label, ...nodes, this.problem, this.note);
    }

    complain(text) {
      this.problem.textContent = text;
      this.problem.hidden = !text;
      this.box.classList.toggle('bad', Boolean(text));
    }

    /** The reset button while the value is off its rest, dimmed while nothing it needs is on. */
    showRest(value, rest = restOf(this.key)) {
      this.reset.hidden = rest === undefined || parameters.same(value, rest);
      this.box.classList.toggle('dim', !parameters.acts(store.params, this.key));
    }

    /** Says that the filter was not applied to the selected token; while text streams the name only is marked. */
    showIgnored(on) {
      const text = on ? glassbox.t(this.key === 'grammar' ? 'samp_ignored_grammar' : 'samp_ignored') : '';
      this.box.classList.toggle('ignored', on);
      this.note.textContent = text;
      this.note.hidden = !on || store.streaming;
      this.label.title = text || this.tip;
    }

    translate() {
      const { t } = glassbox;
      this.tip = this.given === undefined ? t(`samp_tip_${this.key}`) : '';
      if (this.given === undefined) this.label.textContent = this.name;
      this.label.title = this.tip;
      this.reset.title = t('samp_reset', this.name);
      this.reset.setAttribute('aria-label', this.reset.title);
    }
  }

  glassbox.field = { Field, restOf };
})();

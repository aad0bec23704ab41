/**
 * A group of controls that can be closed. Its line says how many of them are on; while it is closed nothing in it is
 * drawn, so that it costs nothing while text streams. What was open is remembered.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, parameters } = glassbox;
  const { el } = dom;

  const KEPT = 'glassbox.open';

  const openNames = () => (glassbox.recall(KEPT) || '').split(' ').filter(Boolean);

  function keepOpen(name, open) {
    const names = openNames().filter((other) => other !== name);
    glassbox.remember(KEPT, (open ? [...names, name] : names).join(' '));
  }

  /** A disclosure with a line of its own: <details> whose summary holds a name and, at the right, a remark. */
  function disclosure(name, key) {
    const box = el('details', 'group');
    box.id = `group-${name}`;
    box.open = openNames().includes(name);
    const summary = el('summary');
    const title = el('span', 'nm');
    title.dataset.t = key;
    const remark = el('span', 'rk num');
    summary.append(dom.icon('right'), title, remark);
    const body = el('div', 'in');
    box.append(summary, body);
    box.addEventListener('toggle', () => keepOpen(name, box.open));
    return { box, body, remark };
  }

  class Group {
    /** @param {string} name @param {object[]} controls */
    constructor(name, controls) {
      this.name = name;
      this.controls = controls;
      Object.assign(this, disclosure(name, `samp_group_${name}`));
      this.body.append(...controls.map(({ box }) => box));
      this.keys = controls.map((control) => control.frame.key);
      this.state = null;
      this.box.addEventListener('toggle', () => this.box.open && this.state && this.show(this.state));
    }

    /** What the closed group says of itself. */
    summary() {
      const { params } = store;
      const { t } = glassbox;
      if (this.name === 'order') return parameters.same(params.order, store.order) ? '' : t('samp_own_order');
      if (this.name === 'form' && params.grammar) return t(`set_grammar_${params.grammar[0]}`);
      const on = this.keys.filter((key) => parameters.isOn(params, key) || (key === 'stop' && params.stop?.length));
      return on.length ? t('samp_on', on.length) : '';
    }

    /** Called for every token: only what can be seen, and has changed, is drawn. */
    show(state) {
      this.state = state;
      const skipped = state.ignored.some((name) => this.keys.some((key) => parameters.filterOf(key) === name));
      this.box.classList.toggle('ignored', skipped);
      if (this.box.open) for (const control of this.controls) control.show(state);
    }

    /** After a change of settings or language. */
    showSummary() {
      this.remark.textContent = this.summary();
    }

    translate() {
      for (const control of this.controls) control.translate();
    }
  }

  glassbox.group = { Group, disclosure };
})();

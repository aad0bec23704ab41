/** The seed: a whole number that can be typed or thrown. It is no parameter: the draws come from it. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, field } = glassbox;

  class Seed {
    constructor() {
      this.frame = new field.Field('seed');
      this.box = this.frame.box;
      this.input = dom.el('input', 'num');
      Object.assign(this.input, { id: 'seed-input', type: 'number', min: 0, step: 1 });
      this.input.setAttribute('aria-describedby', 'seed-problem');
      this.frame.label.htmlFor = this.input.id;
      const dice = dom.iconButton('dice', 'samp_new_seed', () => this.set(glassbox.actions.freshSeed()));
      this.box.classList.add('seed');
      this.frame.fill(this.input, dice);
      this.input.addEventListener('change', () => this.typed());
    }

    set(seed) {
      this.complain('');
      glassbox.actions.setSeed(seed);
    }

    typed() {
      const value = this.input.valueAsNumber;
      if (Number.isSafeInteger(value) && value >= 0) return this.set(value);
      this.complain(glassbox.t('samp_bad_seed'));
      this.input.value = store.seed;
      return undefined;
    }

    complain(text) {
      this.frame.complain(text);
      this.input.setAttribute('aria-invalid', String(Boolean(text)));
    }

    show() {
      if (document.activeElement !== this.input) this.input.value = store.seed;
    }

    translate() {
      this.frame.translate();
    }
  }

  glassbox.seed = { Seed };
})();

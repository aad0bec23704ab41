/**
 * Presets as chips: the server's, and those that a person saved in this browser. A preset sets every number and the
 * order, and leaves words, form and length alone; neutral switches these off as well. A chip is pressed while its
 * settings are in force.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, parameters } = glassbox;
  const { el } = dom;

  const KEPT = 'glassbox.presets';
  const LONGEST = 24; // characters of a name
  const LEFT_ALONE = ['min_new_tokens', 'logit_bias', 'banned', 'grammar'];

  /** @typedef {Object<string, object>} Presets name -> parameters */

  /** @returns {Presets} what was saved here; nothing when it cannot be read */
  function readOwn() {
    try {
      const own = JSON.parse(glassbox.recall(KEPT) || '{}');
      return own && typeof own === 'object' && !Array.isArray(own) ? own : {};
    } catch {
      return {}; // not ours: written by hand, or cut
    }
  }

  const writeOwn = (own) => glassbox.remember(KEPT, JSON.stringify(own));

  /** What every preset sets, at rest: the switches, what they need, the order. */
  function base() {
    const switches = Object.entries(store.neutral).filter(([key]) => !LEFT_ALONE.includes(key));
    const others = Object.keys(parameters.NEEDS).map((key) => [key, store.defaults[key]]);
    return { ...Object.fromEntries([...switches, ...others]), order: store.order };
  }

  const patchOf = (name) => ({ ...base(), ...(name === 'neutral' ? store.neutral : {}), ...store.presets[name] });

  /** A saved preset as it can be taken today: what it lacks is neutral, what is unknown is left out. */
  function ownPatch(saved) {
    const rest = base();
    const known = Object.entries(saved).filter(([key]) => key in rest);
    return { ...rest, ...Object.fromEntries(known) };
  }

  const inForce = (patch) => Object.keys(patch).every((key) => parameters.same(store.params[key], patch[key]));

  class Presets {
    constructor() {
      this.box = el('div', 'presets');
      this.chips = el('div', 'chips');
      this.chips.dataset.label = 'samp_presets';
      this.chips.setAttribute('role', 'group');
      this.problem = el('p', 'problem');
      this.problem.setAttribute('role', 'alert');
      this.problem.hidden = true;
      this.plus = dom.iconButton('add', 'samp_preset_save', () => this.ask(), 'preset-add');
      this.plus.classList.add('plus');
      this.naming = this.buildNaming();
      this.box.append(this.chips, this.problem);
      /** @type {Array<{chip: HTMLElement, patch: object}>} */ this.shown = [];
    }

    // ---- saving ----

    buildNaming() {
      const form = el('form', 'naming');
      this.input = el('input');
      Object.assign(this.input, { id: 'preset-name', type: 'text', maxLength: LONGEST, autocomplete: 'off' });
      this.input.dataset.placeholder = this.input.dataset.label = 'samp_preset_name';
      const save = dom.iconButton('check', 'samp_preset_save', () => {}, 'preset-save');
      save.type = 'submit';
      form.append(this.input, save);
      form.hidden = true;
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.save();
      });
      form.addEventListener('keydown', (event) => {
        if (event.key !== 'Escape') return;
        event.stopPropagation();
        this.close();
      });
      this.input.addEventListener('input', () => this.complain(''));
      return form;
    }

    ask() {
      this.plus.hidden = true;
      this.naming.hidden = false;
      this.input.value = '';
      this.input.focus();
    }

    close() {
      this.naming.hidden = true;
      this.plus.hidden = false;
      this.complain('');
      this.plus.focus();
    }

    complain(text) {
      this.replacing = '';
      this.problem.textContent = text;
      this.problem.hidden = !text;
      this.input.setAttribute('aria-invalid', String(Boolean(text)));
    }

    /** Keeps the numbers in force; a name of one's own is replaced when it is given twice. */
    save() {
      const name = this.input.value.trim();
      const own = readOwn();
      if (!name) return this.complain(glassbox.t('samp_preset_unnamed'));
      if (this.isBuiltIn(name)) return this.complain(glassbox.t('samp_preset_taken', name));
      if (name in own && this.replacing !== name) {
        this.complain(glassbox.t('samp_preset_exists', name));
        this.replacing = name;
        return undefined;
      }
      const values = Object.keys(base()).map((key) => [key, store.params[key]]);
      writeOwn({ ...own, [name]: Object.fromEntries(values) });
      this.build();
      return this.close();
    }

    isBuiltIn(name) {
      const taken = Object.keys(store.presets).flatMap((key) => [key, glassbox.t(`samp_preset_${key}`)]);
      return taken.some((other) => other.toLowerCase() === name.toLowerCase());
    }

    remove(name) {
      const own = readOwn();
      delete own[name];
      writeOwn(own);
      this.build();
      this.plus.focus();
    }

    // ---- chips ----

    chip(text, patch) {
      const chip = el('button', 'chip', text);
      chip.type = 'button';
      chip.addEventListener('click', () => glassbox.actions.setParams({ ...patch }));
      this.shown.push({ chip, patch });
      return chip;
    }

    builtIn(name) {
      const chip = this.chip(glassbox.t(`samp_preset_${name}`), patchOf(name));
      chip.id = `preset-${name}`;
      const facts = glassbox.settingsLabel(patchOf(name));
      chip.title = name === 'neutral' ? glassbox.t('samp_preset_tip_neutral') : facts;
      return chip;
    }

    own(name, saved) {
      const patch = ownPatch(saved);
      const chip = this.chip(name, patch);
      chip.dataset.preset = name;
      chip.title = glassbox.settingsLabel(patch);
      const remove = dom.iconButton('close', 'samp_remove', () => this.remove(name));
      remove.title = glassbox.t('samp_remove', name);
      remove.setAttribute('aria-label', remove.title);
      const pair = el('span', 'own');
      pair.append(chip, remove);
      return pair;
    }

    /** Draws the chips anew: at the greeting, in another language, when one was saved or removed. */
    build() {
      this.shown = [];
      const builtIn = Object.keys(store.presets).map((name) => this.builtIn(name));
      const own = Object.entries(readOwn()).map(([name, saved]) => this.own(name, saved));
      this.chips.replaceChildren(...builtIn, ...own, this.plus, this.naming);
      this.show();
    }

    show() {
      for (const { chip, patch } of this.shown) chip.setAttribute('aria-pressed', String(inForce(patch)));
    }
  }

  glassbox.presets = { Presets };
})();

/**
 * A setting that is a list of strings: typed into a box, shown as chips that can be taken away. Spaces and newlines
 * are drawn, \n and \t may be typed; a list can show how each string splits into tokens.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, field, pieces, parameters } = glassbox;
  const { el } = dom;

  /** A box to type in and a button that adds; Enter adds too. */
  function buildEntry(id, add) {
    const row = el('div', 'entry');
    const input = el('input');
    input.id = id;
    input.type = 'text';
    input.spellcheck = false;
    input.autocomplete = 'off';
    const button = dom.iconButton('add', 'samp_add', add);
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.isComposing) add();
    });
    row.append(input, button);
    return { row, input };
  }

  class Strings {
    /**
     * @param {string} key of the parameter
     * @param {{id?: string, split?: boolean}} [options] id if not the key; whether to show tokens
     */
    constructor(key, { id = key, split = false } = {}) {
      this.key = key;
      this.split = split;
      this.frame = new field.Field(key, { id });
      this.box = this.frame.box;
      this.box.classList.add('strings');
      const entry = buildEntry(`${id}-input`, () => this.add());
      this.input = entry.input;
      this.input.dataset.placeholder = 'samp_string_hint';
      this.input.setAttribute('aria-describedby', `${id}-problem`);
      this.frame.label.htmlFor = this.input.id;
      this.chips = el('ul', 'strs');
      this.made = el('p', 'made');
      this.frame.fill(entry.row, this.chips, this.made);
      this.frame.reset.addEventListener('click', () => {
        this.input.focus();
        this.set(field.restOf(key));
      });
    }

    get value() {
      return store.params[this.key] || [];
    }

    set(list) {
      this.complain('');
      glassbox.actions.setParams({ [this.key]: list });
    }

    add() {
      const text = pieces.unescape(this.input.value);
      if (text === '') return this.complain(glassbox.t('samp_empty_string'));
      this.input.value = '';
      return this.value.includes(text) ? this.complain('') : this.set([...this.value, text]);
    }

    complain(text) {
      this.frame.complain(text);
      this.input.setAttribute('aria-invalid', String(Boolean(text)));
    }

    show({ made, ignored }) {
      const skipped = ignored.includes(parameters.filterOf(this.key));
      const other = made[this.key] && !parameters.same(made[this.key], this.value) ? made[this.key] : null;
      const acts = parameters.acts(store.params, this.key);
      const shown = JSON.stringify([this.value, other, skipped, acts, store.streaming && skipped]);
      if (shown === this.shown) return;
      this.shown = shown;
      this.frame.showRest(this.value);
      this.frame.showIgnored(skipped);
      this.chips.replaceChildren(...this.value.map((text) => this.chip(text)));
      this.chips.hidden = !this.value.length;
      this.made.hidden = !other;
      if (other) this.made.textContent = this.madeWith(other);
    }

    madeWith(list) {
      const { t } = glassbox;
      return t('samp_made_with', list.map(dom.marked).join('  ') || t('samp_nothing_listed'));
    }

    chip(text) {
      const item = el('li', 'str');
      const shown = dom.mark(el('span', 'ptx'), text);
      if (this.split) this.showPieces(shown, text);
      const remove = dom.iconButton('close', 'samp_remove', () => {
        this.input.focus();
        this.set(this.value.filter((other) => other !== text));
      });
      remove.title = glassbox.t('samp_remove', dom.marked(text));
      remove.setAttribute('aria-label', remove.title);
      item.append(shown, remove);
      return item;
    }

    async showPieces(node, text) {
      try {
        pieces.draw(node, await pieces.split(text));
      } catch {
        node.title = glassbox.t('samp_unsplit'); // the string acts all the same
      }
    }

    translate() {
      this.frame.translate();
      this.shown = null;
    }
  }

  glassbox.strings = { Strings, buildEntry };
})();

/**
 * Another token than the listed ones: searched in the whole vocabulary, or typed as text and shown as the tokens that
 * it becomes. Choosing goes on from there.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom } = glassbox;
  const { el, iconButton } = dom;

  const REST_MS = 140; // after the last key
  const MODES = ['search', 'type'];
  const [ID, TEXT, RAW, FINAL, BY, RANK] = [0, 1, 2, 3, 4, 5];

  /** One found token: text, rank, raw, after. */
  function foundRow(candidate) {
    const { t } = glassbox;
    const by = candidate[BY];
    const row = el('button', `cand found${by ? ' rm' : ''}`);
    row.type = 'button';
    Object.assign(row.dataset, { tokenId: candidate[ID], raw: candidate[RAW], final: candidate[FINAL] });
    row.dataset.removedBy = by || '';
    row.title = t('pick_id', candidate[ID]);
    const after = by ? glassbox.distribution.removerName(by) : dom.pct(candidate[FINAL]);
    row.append(
      dom.mark(el('span', 'tx'), candidate[TEXT]),
      el('span', 'rk', t('pop_rank', dom.int(candidate[RANK]))),
      el('span', 'p p1', dom.pct(candidate[RAW])),
      el('span', by ? 'why' : 'p', after),
    );
    return row;
  }

  class Pick {
    /**
     * @param {(what: {token: number}|{text: string}, count: number) => void} choose
     * @param {HTMLElement} opener gets the focus back
     */
    constructor(choose, opener) {
      this.choose = choose;
      this.opener = opener;
      this.mode = MODES[0];
      this.view = null;
      this.asked = 0;
      this.timer = 0;
      this.tokens = 0;
      this.node = el('section', 'pick');
      this.node.hidden = true;
      this.build();
      this.listen();
    }

    build() {
      this.switch = el('div', 'seg');
      this.switch.setAttribute('role', 'group');
      this.switch.dataset.label = 'pick_title';
      for (const mode of MODES) this.switch.append(this.modeButton(mode));
      const head = el('div', 'row');
      head.append(
        this.switch,
        el('span', 'grow'),
        iconButton('close', 'close', () => this.close(true)),
      );
      this.input = el('input');
      Object.assign(this.input, { id: 'pick-input', type: 'text', autocomplete: 'off', spellcheck: false });
      this.hint = el('p', 'said');
      this.hint.setAttribute('role', 'status');
      this.found = el('div', 'found-list scroll');
      this.found.id = 'found';
      this.node.append(head, this.input, this.hint, this.found);
    }

    modeButton(mode) {
      const button = el('button');
      button.type = 'button';
      button.dataset.mode = mode;
      button.dataset.t = `pick_${mode}`;
      button.addEventListener('click', () => this.open(mode));
      return button;
    }

    listen() {
      this.input.addEventListener('input', () => this.later());
      this.node.addEventListener('keydown', (event) => this.onKey(event));
      this.found.addEventListener('click', (event) => {
        const row = event.target.closest('[data-token-id]');
        if (row) this.take({ token: Number(row.dataset.tokenId) }, 1);
      });
    }

    onKey(event) {
      const rows = [this.input, ...this.found.querySelectorAll('.found')];
      const at = rows.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.isComposing) return;
      if (event.key === 'Escape') this.close(true);
      else if (event.key === 'Enter' && at === 0) this.enter();
      else if (step && at >= 0) rows[Math.max(0, Math.min(rows.length - 1, at + step))].focus();
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    /** Enter takes what was typed, or the likeliest token that was found. */
    async enter() {
      clearTimeout(this.timer);
      const text = this.input.value;
      if (!text) return;
      await this.answer();
      const first = this.found.querySelector('.found');
      if (this.mode === 'type' && this.tokens) this.take({ text }, this.tokens);
      else if (first) this.take({ token: Number(first.dataset.tokenId) }, 1);
    }

    take(what, count) {
      this.input.value = '';
      this.close(false);
      this.choose(what, count);
    }

    // ---- asking ----

    later() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.answer(), REST_MS);
    }

    /** Asks the server for what is written; an answer that something newer overtook is dropped. */
    async answer() {
      const mine = ++this.asked;
      const text = this.input.value;
      if (!text) return this.write(glassbox.t(`pick_hint_${this.mode}`), []);
      try {
        const reply = await (this.mode === 'search'
          ? this.searched(text)
          : glassbox.rpc('resolve', { text }));
        if (mine !== this.asked) return undefined;
        return this.mode === 'search' ? this.showFound(reply) : this.showTokens(reply);
      } catch (error) {
        return mine === this.asked ? this.write(error.message, []) : undefined;
      }
    }

    searched(query) {
      const { position, params } = this.view;
      return glassbox.rpc('search', { position, query, params });
    }

    showFound({ cand, more }) {
      const { t } = glassbox;
      const several = more ? t('pick_more', dom.int(cand.length + more), cand.length) : '';
      this.write(cand.length ? several : t('pick_none'), cand.map(foundRow));
    }

    showTokens({ tokens }) {
      this.tokens = tokens.length;
      const { t } = glassbox;
      const row = el('div', 'typed');
      row.append(
        ...tokens.map(([id, text]) =>
          Object.assign(dom.mark(el('span', 'tk'), text), { title: t('pick_id', id) }),
        ),
      );
      const go = el('button', 'btn strong', t('pick_go'));
      go.type = 'button';
      go.addEventListener('click', () => this.enter());
      this.write(tokens.length === 1 ? t('meta_token') : t('meta_tokens', tokens.length), [row, go]);
    }

    write(hint, nodes) {
      this.hint.textContent = hint;
      this.hint.hidden = !hint;
      this.found.replaceChildren(...nodes);
      this.node.scrollIntoView({ block: 'nearest' });
    }

    // ---- the box ----

    isOpen() {
      return !this.node.hidden;
    }

    open(mode = this.mode) {
      this.mode = mode;
      this.node.hidden = false;
      this.tokens = 0;
      for (const button of this.switch.children) {
        button.setAttribute('aria-pressed', String(button.dataset.mode === mode));
      }
      this.translate();
      this.found.replaceChildren();
      this.answer();
      this.input.focus();
    }

    close(giveFocus) {
      if (!this.isOpen()) return;
      this.node.hidden = true;
      this.asked++;
      if (giveFocus) this.opener.focus();
    }

    translate() {
      this.input.placeholder = glassbox.t(`pick_place_${this.mode}`);
      this.input.setAttribute('aria-label', glassbox.t(`pick_${this.mode}`));
    }

    /** @param {View|null} view what is searched; a box for another position searches anew, none closes it */
    show(view) {
      const other =
        view && this.view && (view.position !== this.view.position || view.params !== this.view.params);
      this.view = view;
      if (!view) this.close(false);
      else if (other && this.isOpen() && this.mode === 'search') this.later();
    }
  }

  glassbox.pick = { Pick };
})();

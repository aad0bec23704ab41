/**
 * What could have come here: the candidates of the selected token, each with its raw probability (hollow) and
 * the one after the filters (filled). Choosing one forks. Rows are made once and filled anew, so that
 * following a stream is cheap.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el } = dom;

  const FEW = 12;
  const [ID, TEXT, RAW, FINAL, BY] = [0, 1, 2, 3, 4];

  const FILTERS = { top_k: 'top-k', top_p: 'top-p', min_p: 'min-p' };

  /** Name of the filter that removed a candidate. */
  const filterName = (by) => FILTERS[by] || glassbox.t(`samp_by_${by}`);

  const percent = (p) => `${(100 * p).toPrecision(p > 0 ? 4 : 1)} %`;

  /**
   * Candidates to show: the most likely ones, the last of them giving way to the chosen one when that is
   * below.
   */
  function shownOf({ cand, id }, all) {
    const indices = cand.map((_, i) => i);
    if (all || cand.length <= FEW) return indices;
    const few = indices.slice(0, FEW);
    const chosen = cand.findIndex((c) => c[ID] === id);
    if (chosen >= FEW) few[FEW - 1] = chosen;
    return few;
  }

  function makeRow() {
    const node = el('button', 'cand');
    node.type = 'button';
    const parts = {
      node, mark: el('span'), text: el('span', 'tx'), bars: el('span', 'bb'), raw: el('i'), final: el('b'),
      p: el('span', 'p p1'), after: el('span', 'p'),
    };
    parts.bars.append(parts.raw, parts.final);
    node.append(parts.mark, parts.text, parts.bars, parts.p, parts.after);
    return parts;
  }

  function tip(candidate, rank, chosen) {
    const { t } = glassbox;
    const by = candidate[BY];
    const lines = [
      `${dom.marked(candidate[TEXT])}  (${t('samp_token_id')} ${candidate[ID]}, ${t('pop_rank', rank)})`,
      `${t('pop_raw')} ${percent(candidate[RAW])}`,
      by ? t('pop_removed', filterName(by)) : `${t('pop_after')} ${percent(candidate[FINAL])}`,
      t(chosen ? 'samp_chosen' : 'samp_fork'),
    ];
    return lines.join('\n');
  }

  /** Fills one row; `scale` is the largest probability of the list. */
  function fillRow(parts, candidate, { rank, chosen, scale }) {
    const { node } = parts;
    const by = candidate[BY];
    node.hidden = false;
    Object.assign(node.dataset, {
      tokenId: candidate[ID], raw: candidate[RAW], final: candidate[FINAL], removedBy: by || '',
    });
    node.className = `cand${chosen ? ' ch' : ''}${by ? ' rm' : ''}`;
    node.setAttribute('aria-current', String(chosen));
    parts.tip = () => tip(candidate, rank, chosen);
    if (node.title) node.title = parts.tip();
    parts.mark.className = chosen ? 'mk' : '';
    parts.text.replaceChildren();
    dom.mark(parts.text, candidate[TEXT]);
    parts.raw.style.width = `${(100 * candidate[RAW]) / scale}%`;
    parts.final.style.width = `${(100 * candidate[FINAL]) / scale}%`;
    parts.final.hidden = Boolean(by);
    parts.p.textContent = dom.pct(candidate[RAW]);
    parts.after.textContent = by ? filterName(by) : dom.pct(candidate[FINAL]);
    parts.after.className = by ? 'why' : 'p';
  }

  function hideRow({ node }) {
    node.hidden = true;
    delete node.dataset.tokenId;
  }

  function buildHead() {
    const head = el('div', 'bh row');
    head.append(el('span', 'lab'), el('span', 'grow'));
    for (const [cls, key] of [['mut num c1', 'pop_raw'], ['mut num c2', 'pop_after']]) {
      const node = el('span', cls);
      node.dataset.t = key;
      head.append(node);
    }
    return head;
  }

  class Distribution {
    constructor() {
      this.box = el('section', 'dist');
      this.list = el('div', 'list');
      this.list.id = 'distribution';
      this.list.setAttribute('role', 'group');
      this.list.dataset.label = 'samp_could';
      this.why = el('p', 'given');
      this.more = el('button', 'more');
      this.more.type = 'button';
      this.drawn = el('div', 'dr');
      const head = buildHead();
      this.title = head.firstChild;
      this.box.append(head, this.why, this.list, this.more, this.drawn);
      this.draw = glassbox.draw.makeDraw(this.drawn);
      this.rows = [];
      this.all = false;
      this.held = null;
      this.listen();
    }

    listen() {
      this.more.addEventListener('click', () => {
        this.all = !this.all;
        this.update();
      });
      this.list.addEventListener('click', (event) => {
        const row = event.target.closest('[data-token-id]');
        if (row && this.position !== undefined) this.choose(Number(row.dataset.tokenId));
      });
      this.list.addEventListener('keydown', (event) => this.walk(event));
      for (const name of ['pointerover', 'focusin']) {
        this.list.addEventListener(name, (event) => this.tell(event));
      }
      // a list that changed under the pointer would fork on a token that nobody aimed at
      this.list.addEventListener('pointermove', (event) => this.hold(event.pointerType === 'mouse'));
      this.list.addEventListener('pointerleave', () => this.hold(false));
    }

    hold(on) {
      const { selection, streaming } = store;
      const held = on && streaming && selection.follow ? this.held ?? this.position : null;
      if (held === this.held) return;
      this.held = held;
      this.update();
    }

    choose(token) {
      const { position } = this;
      const here = store.tokens[position];
      this.held = null;
      if (here && here.id !== token) glassbox.actions.fork(position, token);
    }

    /** The exact numbers of a row, first written when it is pointed at. */
    tell(event) {
      const row = this.rows.find(({ node }) => node.contains(event.target));
      if (row) row.node.title = row.tip();
    }

    walk(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const rows = this.rows.filter(({ node }) => !node.hidden).map(({ node }) => node);
      const at = rows.indexOf(document.activeElement);
      const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
      if (next) next.focus();
      event.preventDefault();
      event.stopPropagation();
    }

    /** Why there are no candidates: nothing yet, or a token that was given. */
    explain(token) {
      const { t } = glassbox;
      if (!token) return t('samp_nothing');
      if (token.role === 'user' || token.role === 'text') return t('pop_given_user');
      return t(token.role === 'template' || token.sp ? 'pop_given_template' : 'pop_given');
    }

    update() {
      const position = this.held ?? store.selection.position;
      const token = store.tokens[position];
      const drawn = glassbox.sampled(token) && token.cand;
      this.position = position;
      this.title.textContent = glassbox.t(this.held === null ? 'samp_could' : 'samp_held', position);
      this.why.hidden = Boolean(drawn);
      if (!drawn) this.why.textContent = this.explain(token);
      this.fill(drawn ? token : null);
      this.draw(drawn ? token : null);
      this.box.classList.toggle('held', this.held !== null);
      this.box.classList.toggle('none', !drawn);
    }

    fill(token) {
      const shown = token ? shownOf(token, this.all) : [];
      const scale = token ? Math.max(...token.cand.map((c) => Math.max(c[RAW], c[FINAL])), 1e-9) : 1;
      shown.forEach((i, j) => {
        if (!this.rows[j]) this.list.append((this.rows[j] = makeRow()).node);
        const candidate = token.cand[i];
        const chosen = candidate[ID] === token.id;
        fillRow(this.rows[j], candidate, { rank: chosen ? token.rank : i + 1, chosen, scale });
      });
      for (const row of this.rows.slice(shown.length)) hideRow(row);
      this.more.hidden = !token || token.cand.length <= FEW;
      this.more.textContent = glassbox.t(this.all ? 'samp_fewer' : 'samp_all', token ? token.cand.length : 0);
    }
  }

  glassbox.distribution = { Distribution };
})();

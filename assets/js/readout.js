/**
 * What the heatmap says in words and numbers: the note in its empty corner, the line below it, and a table of
 * the selected row for screen readers. Values are those of the picture (bytes) until the exact row has come.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, looks } = glassbox;

  const NOTE_ROWS = 5;
  const NOTE_LEAST = 0.002; // share of the row's largest value
  const NOTE_BAR = 48;
  const TABLE_ROWS = 10;
  const TABLE_MS = 300;

  /** A value of a kind in few digits. */
  function format(kind, value) {
    if (!Number.isFinite(value)) return '–';
    if (kind === 'score') return value.toFixed(2);
    if (kind === 'value') return value.toPrecision(3);
    if (kind === 'difference') return `${value < 0 ? '−' : '+'}${dom.f3(Math.abs(value))}`;
    return dom.f3(value);
  }

  /** Positions of the largest values, descending; of differences, those furthest from 0. */
  function topKeys(values, count, from, kind = 'weight') {
    const size = kind === 'difference' ? Math.abs : Number;
    const top = [];
    for (let k = from; k < values.length; k++) {
      if (top.length === count && size(values[k]) <= size(values[top[count - 1]])) continue;
      let at = top.length;
      while (at > 0 && size(values[top[at - 1]]) < size(values[k])) at--;
      top.splice(at, 0, k);
      if (top.length > count) top.pop();
    }
    return top;
  }

  const token = (i, cls) => dom.mark(dom.el('b', cls), dom.tokenText(store.tokens[i]));

  // ---- the note ----

  function makeNote(box) {
    const title = dom.el('h3');
    const rows = Array.from({ length: NOTE_ROWS }, () => {
      const row = dom.el('div', 'nr');
      const parts = { row, text: dom.el('span', 'tx'), value: dom.el('span'), bar: dom.el('i') };
      row.append(parts.text, parts.value, parts.bar);
      return parts;
    });
    const next = dom.el('p', 'next');
    const sink = dom.el('p', 'sink');
    box.append(title, ...rows.map(({ row }) => row), next, sink);
    return { title, rows, next, sink };
  }

  function fillTitle(title, query) {
    title.replaceChildren(token(query, 'qc'), ` ${glassbox.t('attn_reads')}`);
  }

  function fillRow(parts, key, { kind, value, top }) {
    const share = top > 0 ? Math.abs(value) / top : 0;
    parts.row.hidden = key === undefined || (kind !== 'score' && share < NOTE_LEAST);
    if (parts.row.hidden) return;
    parts.text.replaceChildren();
    dom.mark(parts.text, dom.tokenText(store.tokens[key]));
    parts.value.textContent = format(kind, value);
    parts.bar.style.width = `${kind === 'score' ? 0 : Math.max(1, Math.min(1, share) * NOTE_BAR)}px`;
    parts.bar.classList.toggle('less', kind === 'difference' && value < 0);
  }

  /** A token as reader goes on to predict the token after it; whether that one was drawn or given is said. */
  function fillNext(node, query) {
    const next = store.tokens[query + 1];
    const key = !next ? 'attn_then_nothing' : glassbox.sampled(next) && next.u !== null ? 'attn_then_chose' : 'attn_then_given';
    const [before, after] = glassbox.t(key).split('{0}');
    node.replaceChildren(before, ...(next ? [token(query + 1)] : []), after || '');
  }

  /** Why the first token is treated as it is, in one line. */
  function fillSink(node, { kind, args }, weights) {
    const { sink, scale } = looks;
    const mass = `${dom.pct(weights[0])} %`;
    const rollout = args.mix === 'rollout';
    const plain = kind === 'weight' && !rollout;
    if (kind === 'difference') node.textContent = glassbox.t('attn_difference_note');
    else if (rollout) node.textContent = glassbox.t('attn_rollout_note', mass);
    else if (kind === 'rest') node.textContent = glassbox.t('attn_sink_rest');
    else if (!plain) node.textContent = glassbox.t(`attn_what_note_${kind}`);
    else if (sink === 'in') node.textContent = glassbox.t(scale === 'log' ? 'attn_sink_log' : 'attn_sink_in', mass);
    else node.textContent = glassbox.t('attn_sink_out', mass);
  }

  /** What a row reads most, in a few lines under a map; nothing where there is no room. */
  function fillBest(box, { sight, query }, map) {
    const top = map.box.size + 38;
    const count = Math.min(NOTE_ROWS, Math.floor((map.box.h - top - 18) / 18));
    const shown = query >= 0 && count > 0 ? glassbox.rows.row(sight, query) : null;
    box.hidden = !shown;
    if (!shown) return;
    box.style.top = `${top}px`;
    const from = looks.sink === 'out' && query > 0 ? 1 : 0;
    const rows = topKeys(shown.weights, count, from, sight.kind).map((key) => {
      const row = dom.el('div', 'nr');
      const text = dom.mark(dom.el('span', 'tx'), dom.tokenText(store.tokens[key]));
      row.append(text, dom.el('span', '', format(sight.kind, shown.weights[key])));
      return row;
    });
    const title = dom.el('h3');
    fillTitle(title, query);
    box.replaceChildren(title, ...rows);
  }

  // ---- the line and the table ----

  const LINE = [['attn_query', 'qc', 'query'], ['attn_key', 'kc', 'key']];

  /** How well a value is known; what three decimals would hide is written out. */
  function precision(kind, value, exact) {
    if (!exact) return glassbox.t('attn_rounded');
    const tiny = kind !== 'score' && value !== 0 && Math.abs(value) < 0.0005;
    return `${glassbox.t('attn_exact')}${tiny ? ` ${value.toExponential(1)}` : ''}`;
  }

  /** What the reader's output says comes next: the token that was drawn there. */
  function predictedBy(query) {
    const next = store.tokens[query + 1];
    if (!glassbox.sampled(next) || next.u === null) return [];
    return [dom.el('span', 'mut q3', glassbox.t('attn_predicts')), token(query + 1, 'q3')];
  }

  function fillLine(line, place, shown) {
    const parts = [];
    for (const [name, colour, at] of LINE) {
      parts.push(glassbox.t(name), token(place[at], colour), dom.el('span', 'mut', place[at]));
    }
    parts.splice(3, 0, ...predictedBy(place.query), dom.el('span', 'mut', '→'));
    const { kind } = place.sight;
    const value = shown.weights[place.key];
    parts.push(dom.el('b', 'weight', format(kind, value)));
    if (kind !== 'weight') parts.push(dom.el('span', 'mut q3', glassbox.t(`attn_what_${kind}`)));
    parts.push(dom.el('span', 'mut q3', precision(kind, value, shown.exact)));
    line.replaceChildren(...parts);
    line.dataset.exact = shown.exact;
  }

  function fillTable(table, { sight, query }, weights) {
    const { t } = glassbox;
    const text = (i) => dom.marked(dom.tokenText(store.tokens[i]));
    const caption = dom.el('caption', '', t('attn_table', text(query), query, glassbox.sights.sightName(sight)));
    const head = dom.el('tr');
    const names = [t('attn_key'), t('attn_position'), t(`attn_what_${sight.kind}`)];
    head.append(...names.map((name) => dom.el('th', '', name)));
    const rows = topKeys(weights, TABLE_ROWS, 0, sight.kind).map((key) => {
      const row = dom.el('tr');
      const cells = [text(key), key, format(sight.kind, weights[key])];
      row.append(...cells.map((cell) => dom.el('td', '', cell)));
      return row;
    });
    table.replaceChildren(caption, head, ...rows);
  }

  /**
   * @param {{note: HTMLElement, line: HTMLElement, table: HTMLElement}} nodes
   * @returns {(place: object, roomForNote: boolean) => void} shows a place: sight, query (-1 none), key (-1 none)
   */
  function makeReadout({ note, line, table }) {
    const parts = makeNote(note);
    let last = null;
    let tableTimer = 0;

    function laterTable() {
      clearTimeout(tableTimer);
      tableTimer = setTimeout(() => {
        const shown = last && glassbox.rows.row(last.sight, last.query);
        if (shown && !store.hover) fillTable(table, last, shown.weights);
      }, TABLE_MS);
    }

    function empty() {
      last = null;
      note.hidden = true;
      table.replaceChildren();
      line.textContent = glassbox.t('attn_hint');
    }

    function fillNote(place, { weights }, top) {
      const { kind } = place.sight;
      const largest = top.length ? Math.abs(weights[top[0]]) : 0;
      fillTitle(parts.title, place.query);
      const whole = kind === 'weight' || kind === 'rest' ? 1 : largest;
      parts.rows.forEach((row, j) => fillRow(row, top[j], { kind, value: weights[top[j]], top: whole }));
      fillNext(parts.next, place.query);
      fillSink(parts.sink, place.sight, weights);
    }

    return (place, roomForNote) => {
      const shown = place.query >= 0 ? glassbox.rows.row(place.sight, place.query) : null;
      if (!shown) return empty();
      last = place;
      const from = looks.sink === 'out' && place.query > 0 ? 1 : 0;
      const top = topKeys(shown.weights, NOTE_ROWS, from, place.sight.kind);
      note.hidden = !roomForNote;
      fillNote(place, shown, top);
      const key = place.key >= 0 && place.key <= place.query ? place.key : top[0];
      if (key !== undefined) fillLine(line, { ...place, key }, shown);
      return laterTable();
    };
  }

  glassbox.readout = { makeReadout, fillBest, topKeys, format };
})();

/**
 * What the heatmap says in words and numbers: the note in its empty corner, the line below it, and a table of
 * the selected row for screen readers. Weights are those of the picture (bytes of the root) until the exact
 * row has come.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;

  const NOTE_ROWS = 5;
  const NOTE_LEAST = 0.002;
  const NOTE_BAR = 48;
  const TABLE_ROWS = 10;
  const EXACT_MS = 120;
  const TABLE_MS = 300;
  const KEPT_EXACT = 64;

  // ---- exact rows ----

  const exact = new Map();
  let timer = 0;
  let asked = '';
  glassbox.on('tokens', ({ truncated }) => truncated && exact.clear());
  glassbox.on('hello', () => exact.clear());

  const keyOf = ({ layer, head, query }) => `${layer}/${head}/${query}`;

  async function fetchExact(place, then) {
    const { epoch } = store;
    try {
      const { weights } = await glassbox.rpc('row', { layer: place.layer, head: place.head, i: place.query });
      if (store.epoch !== epoch) return;
      if (exact.size >= KEPT_EXACT) exact.delete(exact.keys().next().value);
      exact.set(keyOf(place), Float32Array.from(weights));
      then();
    } catch {
      asked = ''; // the rounded weights stay on the screen and say that they are rounded
    }
  }

  /** True for the newest row of a reply that is being written: it is gone before an answer would come. */
  const passing = () => store.streaming && store.selection.follow && !store.hover;

  /** Asks for the exact row once the pointer has rested on it. */
  function askExact(place, then) {
    const key = keyOf(place);
    if (exact.has(key) || asked === key || passing()) return;
    asked = key;
    clearTimeout(timer);
    timer = setTimeout(() => asked === key && fetchExact(place, then), EXACT_MS);
  }

  /** Weights of a row and whether they are exact; null when the row is not here. */
  function weightsOf(place) {
    const known = exact.get(keyOf(place));
    if (known) return { weights: known, exact: true };
    const weights = glassbox.attention.row(place.layer, place.head, place.query);
    return weights && { weights, exact: false };
  }

  /** Positions of the largest weights, descending. */
  function topKeys(weights, count, from) {
    const top = [];
    for (let k = from; k < weights.length; k++) {
      if (top.length === count && weights[k] <= weights[top[count - 1]]) continue;
      let at = top.length;
      while (at > 0 && weights[top[at - 1]] < weights[k]) at--;
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

  function fillRow(parts, key, weight) {
    parts.row.hidden = key === undefined || weight < NOTE_LEAST;
    if (parts.row.hidden) return;
    parts.text.replaceChildren();
    dom.mark(parts.text, dom.tokenText(store.tokens[key]));
    parts.value.textContent = dom.f3(weight);
    parts.bar.style.width = `${Math.max(1, weight * NOTE_BAR)}px`;
  }

  /** A token as reader goes on to choose the token after it; given tokens were not chosen. */
  function fillNext(node, query) {
    const next = store.tokens[query + 1];
    node.hidden = !glassbox.sampled(next) || next.u === null;
    if (node.hidden) return;
    const [before, after] = glassbox.t('attn_then_chose').split('{0}');
    node.replaceChildren(before, token(query + 1), after || '');
  }

  function fillSink(node, mass, skipFirst) {
    node.textContent = glassbox.t(skipFirst ? 'attn_sink_out' : 'attn_sink_in', `${dom.pct(mass)} %`);
  }

  // ---- the line and the table ----

  const LINE = [['attn_query', 'qc', 'query'], ['attn_key', 'kc', 'key']];

  /** How well a weight is known; what three decimals would hide is written out. */
  function precision(weight, exact) {
    if (!exact) return glassbox.t('attn_rounded');
    return `${glassbox.t('attn_exact')}${weight < 0.0005 ? ` ${weight.toExponential(1)}` : ''}`;
  }

  function fillLine(line, place, shown) {
    const parts = [];
    for (const [name, colour, at] of LINE) {
      parts.push(glassbox.t(name), token(place[at], colour), dom.el('span', 'mut', place[at]));
    }
    parts.splice(3, 0, dom.el('span', 'mut', '→'));
    const weight = shown.weights[place.key];
    parts.push(dom.el('b', 'weight', dom.f3(weight)));
    parts.push(dom.el('span', 'mut q3', precision(weight, shown.exact)));
    line.replaceChildren(...parts);
    line.dataset.exact = shown.exact;
  }

  function fillTable(table, place, weights) {
    const { t } = glassbox;
    const text = (i) => dom.marked(dom.tokenText(store.tokens[i]));
    const { layer, head: number, query } = place;
    const caption = dom.el('caption', '', t('attn_table', text(query), query, layer, number));
    const head = dom.el('tr');
    head.append(...['attn_key', 'attn_position', 'attn_weight'].map((name) => dom.el('th', '', t(name))));
    const rows = topKeys(weights, TABLE_ROWS, 0).map((key) => {
      const row = dom.el('tr');
      row.append(dom.el('td', '', text(key)), dom.el('td', '', key), dom.el('td', '', dom.f3(weights[key])));
      return row;
    });
    table.replaceChildren(caption, head, ...rows);
  }

  /**
   * @param {{note: HTMLElement, line: HTMLElement, table: HTMLElement}} nodes
   * @returns {(place: object, look: object) => void} shows a place: layer, head, query (-1 none), key (-1
   * none)
   */
  function makeReadout({ note, line, table }) {
    const parts = makeNote(note);
    let last = null;
    let tableTimer = 0;

    function laterTable() {
      clearTimeout(tableTimer);
      tableTimer = setTimeout(() => {
        const shown = last && weightsOf(last.place);
        if (shown && !store.hover) fillTable(table, last.place, shown.weights);
      }, TABLE_MS);
    }

    function empty() {
      note.hidden = true;
      table.replaceChildren();
      line.textContent = glassbox.t('attn_hint');
    }

    /** The exact row has come: shown if it is still the one looked at. */
    function refine(key) {
      if (last && keyOf(last.place) === key) show(last.place, last.look);
    }

    function show(place, look) {
      const shown = place.query >= 0 ? weightsOf(place) : null;
      last = shown && { place, look };
      if (!shown) return empty();
      const from = look.skipFirst && place.query > 0 ? 1 : 0;
      const top = topKeys(shown.weights, NOTE_ROWS, from);
      note.hidden = !look.roomForNote;
      fillTitle(parts.title, place.query);
      parts.rows.forEach((row, j) => fillRow(row, top[j], shown.weights[top[j]]));
      fillNext(parts.next, place.query);
      fillSink(parts.sink, shown.weights[0], look.skipFirst);
      const key = place.key >= 0 && place.key <= place.query ? place.key : top[0];
      fillLine(line, { ...place, key }, shown);
      if (!shown.exact) askExact(place, () => refine(keyOf(place)));
      return laterTable();
    }
    return show;
  }

  glassbox.readout = { makeReadout, topKeys };
})();

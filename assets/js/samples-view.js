/**
 * Several replies side by side while they are written: a card each, with its seed and temperature, its text tinted by
 * surprise, its statistics. One can be chosen to go on with; the others stay as branches.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el, translate, debounceFrame } = glassbox.dom;

  const NEAR_END = 40; // pixels from the bottom that still count as being there

  /** @typedef {{node: HTMLElement, body: HTMLElement, txt: HTMLElement, figs: HTMLElement, end: HTMLElement,
   *   stats: object, shown: number}} Card */

  let layer = null;
  /** @type {Card[]} */ let cards = [];

  // ---- one card ----

  /** What makes this reply another one comes first. */
  function titleOf({ k, seed, temperature }) {
    const title = el('div', 'st num');
    const { list } = store.samples;
    const seeds = new Set(list.map((one) => one.seed)).size > 1;
    const facts = [glassbox.t('sample_seed', seed), glassbox.t('sample_temperature', temperature)];
    const [first, second] = seeds ? facts : facts.reverse();
    title.append(el('span', 'k', k + 1), el('b', '', first), el('span', 'mut', second));
    return title;
  }

  function pickButton(k) {
    const button = el('button', 'btn', glassbox.t('sample_pick'));
    button.type = 'button';
    button.dataset.pick = k;
    button.dataset.tip = 'go_on_with';
    button.addEventListener('click', () => pick(k));
    return button;
  }

  /** @returns {Card} */
  function buildCard(sample) {
    const node = el('section', 'sample');
    node.dataset.k = sample.k;
    node.setAttribute('aria-label', glassbox.t('sample', sample.k + 1));
    const head = el('header');
    head.append(titleOf(sample), el('span', 'grow'), pickButton(sample.k));
    const body = el('div', 'scroll body');
    body.tabIndex = 0;
    const txt = el('div', 'txt');
    body.append(txt);
    const foot = el('div', 'foot num');
    const figs = el('span', 'figs');
    const end = el('span', 'finish');
    foot.append(figs, end);
    node.append(head, body, foot);
    body.addEventListener('pointerover', (event) => tip(event, sample.k));
    return { node, body, txt, figs, end, stats: new glassbox.Stats(), shown: 0 };
  }

  /** A token's numbers are written into its tip only when it is pointed at. */
  function tip(event, k) {
    const span = event.target.closest('.t');
    if (!span || span.title || !store.samples) return;
    span.title = glassbox.tokenFacts(store.samples.list[k].toks[Number(span.dataset.at)]);
  }

  function addTokens(card, toks) {
    const { body } = card;
    const atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < NEAR_END;
    for (const token of toks.slice(card.shown)) {
      const span = glassbox.tintedSpan(token);
      span.dataset.at = card.shown++;
      card.txt.append(span);
      card.stats.add(token);
    }
    if (atEnd) body.scrollTop = body.scrollHeight;
  }

  function drawCard(card, { toks, finish }) {
    if (toks.length > card.shown) addTokens(card, toks);
    const live = !finish && store.streaming;
    card.node.classList.toggle('live', live);
    glassbox.drawFigures(card.figs, glassbox.figures(card.stats));
    card.end.className = `finish ${finish || ''}`;
    card.end.textContent = live ? '' : glassbox.t(`finish_${finish || 'stopped'}`);
  }

  // ---- all of them ----

  function drawProgress() {
    const { list } = store.samples;
    const done = list.filter(({ finish }) => finish).length;
    const text = store.streaming
      ? glassbox.t('samples_running', done, list.length)
      : glassbox.t('samples_done', list.length);
    const node = layer.node.querySelector('.progress');
    if (node.textContent !== text) node.textContent = text;
    layer.node.querySelector('#samples-stop').disabled = !store.streaming;
  }

  const draw = debounceFrame(() => {
    if (!layer || !store.samples) return;
    store.samples.list.forEach((sample, at) => drawCard(cards[at], sample));
    drawProgress();
  });

  async function pick(k) {
    const view = layer;
    if (!(await actions.pickSample(k))) return;
    if (view) view.close();
    document.getElementById('message').focus();
  }

  async function discard() {
    const view = layer;
    if ((await actions.dropSamples()) && view) view.close();
  }

  function button(id, key, action) {
    const node = el('button', 'btn', glassbox.t(key));
    node.type = 'button';
    node.id = id;
    node.addEventListener('click', action);
    return node;
  }

  /** Arrows go from card to card, a number goes on with that one. */
  function onKey(event) {
    if (!layer) return; // it was Escape
    const picks = [...layer.node.querySelectorAll('[data-pick]')];
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const k = Number(event.key) - 1;
    if (by) {
      const card = event.target.closest('.sample');
      const at = card ? Number(card.dataset.k) + by : 0;
      const next = picks[Math.max(0, Math.min(picks.length - 1, at))];
      next.focus();
      next.closest('.sample').scrollIntoView({ block: 'nearest', inline: 'center' });
    } else if (k >= 0 && k < picks.length) pick(k);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Opens the samples there are over the chat; the transcript under them keeps its place. */
  function showSamples() {
    if (!store.samples) return;
    const { list } = store.samples;
    const onClose = () => {
      layer = null;
      cards = [];
    };
    layer = glassbox.layers.openView({
      id: 'samples',
      title: glassbox.t('samples_title', list.length),
      onClose,
    });
    const progress = el('span', 'progress num');
    progress.setAttribute('role', 'status');
    layer.tools.append(
      progress,
      button('samples-stop', 'samples_stop', actions.stop),
      button('samples-discard', 'samples_discard', discard),
    );
    const grid = el('div', 'samples');
    grid.dataset.n = list.length;
    cards = list.map(buildCard);
    grid.append(...cards.map(({ node }) => node));
    layer.node.append(grid, el('p', 'hint', glassbox.t('samples_hint')));
    layer.node.addEventListener('keydown', onKey);
    translate(layer.node);
    draw();
  }

  glassbox.on('samples', ({ fresh }) => {
    if (fresh && !store.samples && layer) layer.close();
    draw();
  });
  glassbox.on('state', draw);
  glassbox.on('lang', () => {
    if (!layer) return;
    layer.close();
    showSamples();
  });
  glassbox.showSamples = showSamples;
})();

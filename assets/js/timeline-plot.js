/**
 * The timeline's picture: one tick a token, entropy as a line, surprise as bars, roles as bands, flags where settings
 * changed, a mark where a token was chosen by hand.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { fitCanvas, css, bits } = glassbox.dom;

  const SIDE = 8;
  const WIDEST = 16; // a short conversation does not fill the strip
  const SMALL = 70; // a canvas lower than this has no room for words
  const BAND = { assistant: '--ra', user: '--ru', system: '--rs', text: '--ra' };
  const LABEL_ROOM = 50;
  const NAME_ROOM = 30; // a flag's name is cut off to no less
  const INDENT = 5; // from a flag to its name
  const GAP = 8; // between a name and the next flag
  const HAND = 3; // half the size of the mark of a token chosen by hand

  const tickWidth = (w) => Math.min(WIDEST, (w - 2 * SIDE) / Math.max(1, store.tokens.length));

  /** The token at `x` of a strip `w` wide. */
  const positionAt = (x, w) =>
    Math.max(0, Math.min(store.tokens.length - 1, Math.floor((x - SIDE) / tickWidth(w))));

  /** Where things stand on the canvas: tick width, top and bottom of the plot, the value at the top. */
  function measure(w, h) {
    const small = h < SMALL;
    let most = 1;
    for (const token of store.tokens) if (sampled(token)) most = Math.max(most, token.ent || 0);
    return {
      w,
      h,
      small,
      most,
      tick: tickWidth(w),
      top: small ? 14 : 24,
      bottom: h - (small ? 10 : 22),
    };
  }

  const xOf = (m, i) => SIDE + i * m.tick;
  const yOf = (m, nats) => m.bottom - (Math.min(nats, m.most) / m.most) * (m.bottom - m.top);

  // ---- bands, bars, line ----

  /** Stretches of one role, template apart. */
  function roleRuns() {
    const runs = [];
    for (const { role, i } of store.tokens) {
      const last = runs.at(-1);
      if (last && last.role === role && last.end === i) last.end++;
      else runs.push({ role, start: i, end: i + 1 });
    }
    return runs.filter(({ role }) => role in BAND);
  }

  function drawBands(g, m) {
    let free = 0; // a label begins right of the one before it
    for (const { role, start, end } of roleRuns()) {
      const x = xOf(m, start);
      const width = Math.max(1, (end - start) * m.tick - 1);
      g.fillStyle = css(BAND[role]);
      g.fillRect(x, m.bottom + 3, width, 3);
      if (m.small || width < LABEL_ROOM || x < free) continue;
      g.fillStyle = css('--ink3');
      g.fillText(glassbox.t(`band_${role}`), x, m.h - 4);
      free = x + LABEL_ROOM;
    }
  }

  function drawBars(g, m) {
    const width = Math.max(0.7, m.tick - (m.tick > 4 ? 2 : m.tick * 0.25));
    for (const token of store.tokens) {
      const level = sampled(token) ? glassbox.surprise(token.lp) : 0;
      if (!level) continue;
      const y = yOf(m, -token.lp);
      g.fillStyle = `rgba(${css('--su')},${(0.25 + 0.6 * level).toFixed(2)})`;
      g.fillRect(xOf(m, token.i) + (m.tick - width) / 2, y, width, m.bottom - y);
    }
  }

  function drawEntropy(g, m) {
    g.beginPath();
    store.tokens.forEach((token, i) => {
      if (!sampled(token)) return;
      const draw = sampled(store.tokens[i - 1]) ? 'lineTo' : 'moveTo';
      g[draw](xOf(m, i + 0.5), yOf(m, token.ent));
    });
    Object.assign(g, { strokeStyle: css('--ink'), lineWidth: m.tick < 1.5 ? 1 : 1.4, lineJoin: 'round' });
    g.stroke();
  }

  // ---- chosen by hand ----

  const byHand = () => store.tokens.filter((token) => sampled(token) && token.u === null);

  /** A small diamond on the base line under each. */
  function drawHands(g, m) {
    g.fillStyle = css('--ink');
    g.strokeStyle = css('--sur');
    g.lineWidth = 1.5;
    for (const { i } of byHand()) {
      const x = xOf(m, i + 0.5);
      const y = m.bottom + 1;
      g.beginPath();
      g.moveTo(x, y - HAND - 1);
      g.lineTo(x + HAND, y);
      g.lineTo(x, y + HAND + 1);
      g.lineTo(x - HAND, y);
      g.closePath();
      g.stroke();
      g.fill();
    }
  }

  // ---- flags ----

  let known = { key: '', list: [] };

  function findFlags() {
    const found = [];
    let before = null;
    for (const { i, par } of store.tokens) {
      if (par == null) continue;
      const text =
        before === null || par === before
          ? ''
          : glassbox.settingsChange(store.settings[before], store.settings[par]);
      if (text) found.push({ i, text });
      before = par;
    }
    return found;
  }

  /** Positions where a sampled token's settings differ from those before it, with what changed. */
  function flags() {
    const key = [store.lang, store.epoch, store.tokens.length, store.settings.length].join();
    if (known.key !== key) known = { key, list: findFlags() };
    return known.list;
  }

  /** A flag's text no wider than `room`: without the values from before, if need be with its end cut off. */
  function fitText(g, text, room) {
    const fits = (shown) => g.measureText(shown).width <= room;
    if (fits(text)) return text;
    const after = text.replace(/[^\s,]+ → /g, '');
    if (fits(after)) return after;
    let n = after.length;
    while (n > 0 && !fits(`${after.slice(0, n)}…`)) n--;
    return `${after.slice(0, n).trimEnd()}…`;
  }

  /** A flag's name has the room before the next flag; without enough it has none. */
  function drawFlags(g, m, position) {
    const list = flags();
    let free = SIDE + g.measureText(scaleText(m)).width + 16;
    list.forEach(({ i, text }, at) => {
      const x = Math.round(xOf(m, i));
      const next = at + 1 < list.length ? xOf(m, list[at + 1].i) : m.w;
      const room = next - x - INDENT - GAP;
      const wanted = g.measureText(text).width;
      const named = !m.small && x >= free && room >= Math.min(wanted, NAME_ROOM);
      const top = named || m.small ? 6 : m.top - 4; // a flag without a name stays out of the others' names
      g.fillStyle = css(i === position ? '--q' : '--ink3');
      g.fillRect(x, top, 1, m.bottom - top);
      if (!named) return;
      g.fillStyle = css('--ink2');
      const shown = fitText(g, text, room);
      g.fillText(shown, x + INDENT, 14);
      free = x + INDENT + g.measureText(shown).width + GAP;
    });
  }

  function scaleText(m) {
    if (m.small) return '';
    const text = glassbox.t('timeline_label', bits(m.most).toFixed(1));
    return byHand().length ? text + glassbox.t('timeline_hand') : text;
  }

  function drawCursor(g, m, position) {
    const token = store.tokens[position];
    if (!token) return;
    const x = xOf(m, position + 0.5);
    g.fillStyle = css('--q');
    g.fillRect(x - 0.75, m.top - 4, 1.5, m.bottom - m.top + 10);
    g.beginPath();
    g.arc(x, sampled(token) ? yOf(m, token.ent) : m.bottom, 3.5, 0, 7);
    g.fill();
  }

  // ---- all of it ----

  function drawTimeline(canvas) {
    const { g, w, h } = fitCanvas(canvas);
    if (w < 40) return;
    const m = measure(w, h);
    const { query } = glassbox.looking();
    g.textBaseline = 'alphabetic';
    g.fillStyle = css('--ink3');
    if (!store.tokens.length) {
      g.fillText(glassbox.t('timeline_empty'), SIDE, h / 2 + 4);
      return;
    }
    g.fillText(scaleText(m), SIDE, 14);
    drawBands(g, m);
    drawBars(g, m);
    drawEntropy(g, m);
    drawFlags(g, m, query);
    drawHands(g, m);
    drawCursor(g, m, query);
  }

  /** What changed at a token, or nearest to the left of `x` within a few pixels; '' when nothing did. */
  const flagAt = (i) => (flags().find((flag) => flag.i === i) || { text: '' }).text;

  glassbox.plot = { drawTimeline, positionAt, flagAt };
})();

/**
 * One tick a token: entropy as a line, surprise as bars, roles as bands, flags where settings changed. Dragging
 * or arrow keys move the selection.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { el, icon, iconButton, translate, fitCanvas, css, bits, tokenText, marked, debounceFrame } =
    glassbox.dom;

  const SIDE = 8;
  const WIDEST = 16; // a short conversation does not fill the strip
  const SMALL = 70; // a canvas lower than this has no room for words
  const BAND = { assistant: '--ra', user: '--ru', system: '--rs', text: '--ra' };
  const LABEL_ROOM = 50;

  // ---- drawing ----

  const tickWidth = (w) => Math.min(WIDEST, (w - 2 * SIDE) / Math.max(1, store.tokens.length));

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

  /** Positions where a sampled token's settings differ from those before it, with what changed. */
  function flags() {
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

  function drawFlags(g, m) {
    let free = SIDE + g.measureText(scaleText(m)).width + 16;
    for (const { i, text } of flags()) {
      const x = Math.round(xOf(m, i));
      const width = g.measureText(text).width + 10;
      const named = !m.small && x >= free && x + width <= m.w;
      const top = named || m.small ? 6 : m.top - 4; // a flag without a name stays out of the others' names
      g.fillStyle = css('--ink3');
      g.fillRect(x, top, 1, m.bottom - top);
      if (!named) continue;
      g.fillStyle = css('--ink2');
      g.fillText(text, x + 5, 14);
      free = x + width;
    }
  }

  const scaleText = (m) => (m.small ? '' : glassbox.t('timeline_label', bits(m.most).toFixed(1)));

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

  function drawCanvas(canvas) {
    const { g, w, h } = fitCanvas(canvas);
    if (w < 40) return;
    const m = measure(w, h);
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
    drawFlags(g, m);
    drawCursor(g, m, glassbox.looking().query);
  }

  // ---- read-out ----

  function drawReadout({ canvas, play, position, sub }) {
    const { query } = glassbox.looking();
    const { tokens } = store;
    const token = tokens[query];
    const last = Math.max(0, tokens.length - 1);
    position.textContent = tokens.length ? `${query} / ${last}` : '';
    sub.textContent = token && sampled(token) ? glassbox.t('bits', bits(token.ent).toFixed(2)) : '';
    play.disabled = !glassbox.replay.isOn() && (store.streaming || !tokens.some(sampled));
    canvas.setAttribute('aria-valuenow', query);
    canvas.setAttribute('aria-valuemax', last);
    canvas.setAttribute(
      'aria-valuetext',
      token ? glassbox.t('timeline_value', query, last, marked(tokenText(token))) : '',
    );
  }

  // ---- scrubbing ----

  function goTo(position) {
    glassbox.replay.stop();
    glassbox.hoverAt(null);
    glassbox.select({ position });
    glassbox.revealToken(store.selection.position);
  }

  function addScrub(canvas) {
    const positionAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const at = Math.floor((event.clientX - box.left - SIDE) / tickWidth(box.width));
      return Math.max(0, Math.min(store.tokens.length - 1, at));
    };
    let at = 0;
    const go = debounceFrame(() => store.tokens.length && goTo(at));
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      at = positionAt(event);
      go();
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      at = positionAt(event);
      go();
    });
    canvas.addEventListener('keydown', onKey);
  }

  function onKey(event) {
    const { position } = store.selection;
    const to = {
      ArrowLeft: position - 1,
      ArrowRight: position + 1,
      PageUp: position - 10,
      PageDown: position + 10,
      Home: 0,
      End: store.tokens.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    goTo(to);
  }

  // ---- all of it ----

  function drawPlay(button) {
    const on = glassbox.replay.isOn();
    button.replaceChildren(icon(on ? 'pause' : 'play'));
    button.dataset.tip = on ? 'replay_pause' : 'replay';
    translate(button.parentNode);
  }

  function build(root) {
    const canvas = el('canvas');
    canvas.id = 'scrub';
    canvas.tabIndex = 0;
    canvas.setAttribute('role', 'slider');
    canvas.setAttribute('aria-valuemin', '0');
    const play = iconButton('play', 'replay', glassbox.replay.turn, 'replay');
    const parts = { canvas, play, position: el('b', 'num'), sub: el('small', 'mut num') };
    const text = el('div');
    text.append(parts.position, parts.sub);
    const controls = el('div', 'tlc');
    controls.append(play, text);
    const wrap = el('div', 'tlw');
    wrap.append(canvas);
    const panel = el('section', 'tl');
    panel.append(controls, wrap);
    root.append(panel);
    return { panel, ...parts };
  }

  glassbox.widgets.timeline = (root) => {
    const parts = build(root);
    addScrub(parts.canvas);
    const draw = debounceFrame(() => {
      drawCanvas(parts.canvas);
      drawReadout(parts);
    });
    const drawTexts = () => {
      parts.panel.setAttribute('aria-label', glassbox.t('timeline'));
      parts.canvas.setAttribute('aria-label', glassbox.t('timeline'));
      drawPlay(parts.play);
      draw();
    };
    for (const topic of ['tokens', 'selection', 'hover', 'theme', 'hello', 'state']) glassbox.on(topic, draw);
    glassbox.on('lang', drawTexts);
    glassbox.on('replay', () => drawPlay(parts.play));
    new ResizeObserver(draw).observe(parts.canvas.parentNode);
    drawTexts();
  };
})();

/**
 * The strip under the panels: the picture of all tokens, where the selection stands in it, the replay. Dragging or
 * arrow keys move the selection.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled, plot } = glassbox;
  const { el, icon, iconButton, translate, bits, tokenText, marked, debounceFrame } = glassbox.dom;

  // ---- read-out ----

  function valueText(query, last) {
    const token = store.tokens[query];
    if (!token) return '';
    const { t } = glassbox;
    const flag = plot.flagAt(query);
    const facts = [t('timeline_value', query, last, marked(tokenText(token)))];
    if (sampled(token)) facts.push(t('bits', bits(token.ent).toFixed(2)));
    if (token.u === null) facts.push(t('fact_hand'));
    return [...facts, flag].filter(Boolean).join(t('comma'));
  }

  function drawReadout({ canvas, play, speed, position, sub }) {
    const { query } = glassbox.looking();
    const { tokens } = store;
    const token = tokens[query];
    const last = Math.max(0, tokens.length - 1);
    position.textContent = tokens.length ? `${query} / ${last}` : '';
    sub.textContent = token && sampled(token) ? glassbox.t('bits', bits(token.ent).toFixed(2)) : '';
    play.disabled = !glassbox.replay.isOn() && (store.streaming || !tokens.some(sampled));
    speed.hidden = !tokens.length;
    canvas.setAttribute('aria-valuenow', query);
    canvas.setAttribute('aria-valuemax', last);
    canvas.setAttribute('aria-valuetext', valueText(query, last));
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
      return plot.positionAt(event.clientX - box.left, box.width);
    };
    let at = 0;
    const go = debounceFrame(() => store.tokens.length && goTo(at));
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      at = positionAt(event);
      go();
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return tellFlag(canvas, positionAt(event));
      at = positionAt(event);
      return go();
    });
    canvas.addEventListener('keydown', onKey);
  }

  /** A flag that has no room for its name says it when it is pointed at. */
  function tellFlag(canvas, position) {
    const near = [position, position - 1, position + 1].map(plot.flagAt).find(Boolean) || '';
    if (canvas.title !== near) canvas.title = near;
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

  /** How fast a reply is replayed, as a share of its own pace. */
  function speedMenu() {
    const select = el('select', 'num');
    select.id = 'speed';
    select.dataset.tip = 'replay_speed';
    for (const speed of glassbox.replay.SPEEDS) {
      const option = el('option', '', `${speed}×`);
      option.value = speed;
      select.append(option);
    }
    select.value = 1;
    select.addEventListener('change', () => glassbox.replay.setSpeed(Number(select.value)));
    return select;
  }

  function build(root) {
    const canvas = el('canvas');
    canvas.id = 'scrub';
    canvas.tabIndex = 0;
    canvas.setAttribute('role', 'slider');
    canvas.setAttribute('aria-valuemin', '0');
    const play = iconButton('play', 'replay', glassbox.replay.turn, 'replay');
    const speed = speedMenu();
    const parts = { canvas, play, speed, position: el('b', 'num'), sub: el('small', 'mut num') };
    const text = el('div', 'at');
    text.append(parts.position, parts.sub);
    const controls = el('div', 'tlc');
    controls.append(play, text, speed);
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
      plot.drawTimeline(parts.canvas);
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

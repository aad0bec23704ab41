/**
 * The head grid: one cell a head, layers across, heads down, coloured by a metric. Hover previews a head, a
 * click or the arrow keys select it. Its numbers are pulled, never while a pull is under way.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;

  const METRICS = ['first', 'previous', 'entropy', 'distance'];
  const LEFT = 62;
  const BOTTOM = 20;
  const EVERY_MS = 2000;
  const RETRY_MS = 3000;
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const show = (metric, value) => (metric === 'distance' ? value.toFixed(1) : dom.f3(value));

  // what came while the page was hidden was not pulled
  document.addEventListener('visibilitychange', () => document.hidden || glassbox.emit('visible'));

  // ---- numbers ----

  /** Keeps one metric fresh: `refresh()` may be called at every token. */
  function makeFeed(changed) {
    const feed = { metric: METRICS[0], grid: null, error: null };
    let pulling = false;
    let again = false;
    let lost = false;
    let timer = 0;
    let last = 0;

    async function pull() {
      timer = 0;
      if (pulling || document.hidden || !store.sid) return;
      pulling = true;
      again = false;
      last = Date.now();
      const { metric } = feed;
      try {
        const grid = await glassbox.rpc('grid', { metric });
        if (metric === feed.metric) Object.assign(feed, { grid: grid.n ? grid : null, error: null });
      } catch (error) {
        feed.error = error.message;
        last = Date.now() + RETRY_MS - EVERY_MS;
      }
      pulling = false;
      changed();
      if (again || metric !== feed.metric || feed.error) feed.refresh();
    }

    glassbox.on('lost', () => {
      lost = true;
    });
    glassbox.on('visible', () => feed.refresh());
    feed.refresh = (now = false) => {
      if (lost) return;
      again = true;
      if (timer && now) timer = clearTimeout(timer) || 0;
      if (pulling || timer) return;
      const wait = now ? 0 : Math.max(0, last + EVERY_MS - Date.now());
      timer = setTimeout(pull, wait);
    };
    return feed;
  }

  // ---- drawing ----

  const layout = (w, h) => {
    const { n_layer: layers, n_head: heads } = store.model;
    return { cw: (w - LEFT - 2) / layers, ch: (h - BOTTOM - 2) / heads };
  };

  /** Pixel box of a cell, its right and lower edge one pixel short so that a hairline stays between cells. */
  function cellBox({ cw, ch }, layer, head) {
    const left = (i) => Math.round(LEFT + 1 + i * cw);
    const top = (i) => Math.round(1 + i * ch);
    const gap = Math.min(cw, ch) > 4 ? 1 : 0;
    const [x, y] = [left(layer), top(head)];
    return [x, y, left(layer + 1) - x - gap, top(head + 1) - y - gap];
  }

  /** Place of a value on the ramp; all equal means all at its start. */
  const shareOf = (grid, value) => (grid.max > grid.min ? (value - grid.min) / (grid.max - grid.min) : 0);

  function drawCells(g, sizes, grid) {
    const { n_layer: layers, n_head: heads } = store.model;
    const { rgb } = dom.lut();
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const share = grid ? shareOf(grid, grid.values[layer * heads + head]) : 0;
        g.fillStyle = grid ? rgb[Math.round(255 * Math.max(0, Math.min(1, share)))] : dom.css('--sunk');
        g.fillRect(...cellBox(sizes, layer, head));
      }
    }
  }

  /** Indices worth a label: every `step`th, and the last when it does not collide. */
  function ticks(count, size, room) {
    const step = [1, 2, 3, 4, 5, 10, 20].find((n) => n * size >= room) || 20;
    const list = [];
    for (let i = 0; i < count; i += step) list.push(i);
    const last = list[list.length - 1];
    if (last !== count - 1 && (count - 1 - last) * size < room * 0.8) list.pop();
    if (last !== count - 1) list.push(count - 1);
    return list;
  }

  function drawLabels(g, { cw, ch }, h) {
    const { n_layer: layers, n_head: heads } = store.model;
    g.fillStyle = dom.css('--ink3');
    g.textBaseline = 'alphabetic';
    g.textAlign = 'center';
    for (const layer of ticks(layers, cw, Math.max(22, 5 * cw))) {
      g.fillText(layer, LEFT + 1 + (layer + 0.5) * cw, h - 4);
    }
    g.textAlign = 'right';
    for (const head of ticks(heads, ch, Math.max(14, 4 * ch))) {
      g.fillText(head ? head : `${glassbox.t('attn_head')} 0`, LEFT - 8, 1 + (head + 0.5) * ch + 4);
    }
    g.fillText(glassbox.t('attn_layer'), LEFT - 8, h - 4);
  }

  function drawFrame(g, sizes, { layer, head }, colour, width) {
    const [x, y, w, h] = cellBox(sizes, layer, head);
    for (const [style, line] of [[dom.css('--sur'), width + 2], [colour, width]]) {
      g.strokeStyle = style;
      g.lineWidth = line;
      g.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    }
  }

  function drawGrid(canvas, feed) {
    const { g, w, h } = dom.fitCanvas(canvas);
    if (!w || !store.model) return;
    const { selection } = store;
    const look = glassbox.looking();
    const sizes = layout(w, h);
    drawCells(g, sizes, feed.grid);
    drawLabels(g, sizes, h);
    const hovered = look.layer !== selection.layer || look.head !== selection.head;
    if (hovered) drawFrame(g, sizes, look, dom.css('--ink2'), 1.5);
    drawFrame(g, sizes, selection, dom.css('--ink'), 2);
    Object.assign(canvas.dataset, { layer: selection.layer, head: selection.head });
  }

  // ---- reading and choosing ----

  function headAt(canvas, event) {
    if (!store.model) return null;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const { cw, ch } = layout(width, height);
    const layer = Math.floor((event.clientX - left - LEFT - 1) / cw);
    const head = Math.floor((event.clientY - top - 1) / ch);
    const inside = layer >= 0 && layer < store.model.n_layer && head >= 0 && head < store.model.n_head;
    return inside ? { layer, head } : null;
  }

  function attach(canvas) {
    const hover = (place) => {
      const now = store.hover;
      if (place || (now && now.query == null && now.layer != null)) glassbox.hoverAt(place);
    };
    canvas.addEventListener('pointermove', (event) => {
      if (event.pointerType === 'mouse') hover(headAt(canvas, event));
    });
    canvas.addEventListener('pointerleave', () => hover(null));
    canvas.addEventListener('click', (event) => {
      const place = headAt(canvas, event);
      hover(null);
      if (place) glassbox.select(place);
    });
    canvas.addEventListener('keydown', (event) => {
      const step = ARROWS[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      const { layer, head } = store.selection;
      glassbox.select({ layer: layer + step[0], head: head + step[1] });
    });
  }

  /** Colour bar with its ends, and the value of the head looked at. */
  function writeValues({ bar, value, feed }) {
    const { t } = glassbox;
    const { grid, metric } = feed;
    const { layer, head } = glassbox.looking();
    const shade = dom.el('i');
    shade.style.background = dom.ramp();
    const end = (x) => String(Number(x.toFixed(metric === 'distance' ? 1 : 2)));
    const ends = grid ? [end(grid.min), shade, end(grid.max)] : [shade];
    bar.replaceChildren(...ends, dom.el('span', 'gu', t(`attn_unit_${metric}`)));
    const number = grid ? `  ${show(metric, grid.values[layer * store.model.n_head + head])}` : '';
    value.textContent = feed.error || `L${layer} H${head}${number}`;
  }

  /**
   * @param {{canvas: HTMLCanvasElement, bar: HTMLElement, value: HTMLElement}} nodes
   * @returns {{draw: Function, feed: object}}
   */
  function makeGrid(nodes) {
    const { canvas } = nodes;
    const redraw = dom.debounceFrame(() => draw());
    const feed = makeFeed(redraw);
    const draw = () => {
      drawGrid(canvas, feed);
      if (!store.model) return;
      writeValues({ ...nodes, feed });
      const name = glassbox.t(`attn_metric_${feed.metric}`);
      canvas.setAttribute('aria-label', glassbox.t('attn_grid_label', name, nodes.value.textContent));
    };
    attach(canvas);
    return { draw: redraw, feed };
  }

  glassbox.grid = { METRICS, makeGrid };
})();

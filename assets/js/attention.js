/**
 * The attention panel: grid of heads, heatmap of one, what it says in words. Also `glassbox.attention`,
 * through which the chat asks what a head read.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, patterns } = glassbox;
  const { el } = dom;

  const PREVIEW_MS = 80;
  const WAITING_MS = 120;

  /** How weights become colours, for the heatmap and for the tint of the chat. */
  const look = { scale: 'sqrt', skipFirst: true };

  /** Weights of one row, as exact as the picture: null when the row has not come. */
  function row(layer, head, query) {
    const triangle = patterns.get(layer, head);
    if (!triangle || query < 0 || query >= triangle.n) return null;
    return Float32Array.from(triangle.row(query), (byte) => patterns.WEIGHT[byte]);
  }

  glassbox.attention = {
    row,
    look,
    /** Whether the first token is left out of the scale. */
    get skipFirst() {
      return look.skipFirst;
    },
  };

  // ---- what is shown ----

  /** The head looked at, or the one painted last while its rows are on the way. */
  function makeSight() {
    let painted = null;
    return () => {
      const { layer, head, query, key } = glassbox.looking();
      const { selection } = store;
      for (const place of [{ layer, head }, selection, painted]) {
        const triangle = place && patterns.get(place.layer, place.head);
        if (!triangle || !triangle.n) continue;
        painted = { layer: place.layer, head: place.head };
        return { ...painted, triangle, query: Math.min(query, triangle.n - 1), key };
      }
      painted = null;
      return { layer, head, triangle: null, query: -1, key: -1 };
    };
  }

  /** Pulls a hovered head once the pointer has rested on it. */
  function makePreview() {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      const { layer, head } = glassbox.looking();
      if (!store.rows || patterns.complete(layer, head)) return;
      timer = setTimeout(() => patterns.pull(layer, head).catch(() => undefined), PREVIEW_MS);
    };
  }

  function writeTop(nodes, sight) {
    const { t } = glassbox;
    const shade = el('i');
    shade.style.background = dom.ramp();
    nodes.name.textContent = t('attn_name', sight.layer, sight.head);
    const top = sight.triangle ? glassbox.picture.topWeight(sight.triangle, look.skipFirst) : 1;
    const low = look.scale === 'log' ? String(glassbox.picture.LOG_FLOOR) : '0';
    nodes.ramp.replaceChildren(low, shade, top.toFixed(2));
  }

  function writeZoom(button, map) {
    button.hidden = !map.zoomed;
    if (map.zoomed) button.firstChild.textContent = `× ${(map.span(map.rows) / map.view.n).toFixed(1)}`;
  }

  /** Without a row: what to do, or that the model is reading. */
  function writeEmpty(box, { triangle }) {
    const { t } = glassbox;
    const [title, text] = box.children;
    box.hidden = triangle !== null || !store.model;
    const reading = store.tokens.length > 0;
    title.textContent = reading ? t('attn_reading', store.tokens.length) : t('attn_empty');
    text.textContent = reading ? '' : t('attn_empty_text');
  }

  function writeHooks(canvasNode, sight) {
    const rows = sight.triangle ? sight.triangle.n : 0;
    Object.assign(canvasNode.dataset, { layer: sight.layer, head: sight.head, rows });
    canvasNode.setAttribute('aria-label', glassbox.t('attn_map_label', sight.layer, sight.head, rows));
  }

  // ---- the panel ----

  class Panel {
    constructor(root) {
      this.nodes = glassbox.attentionNodes(root, look);
      const { grid, heat } = this.nodes;
      this.sight = makeSight();
      this.preview = makePreview();
      this.grid = glassbox.grid.makeGrid(grid);
      this.map = new glassbox.heatmap.Heatmap(heat.map);
      this.readout = glassbox.readout.makeReadout(heat);
      this.draw = dom.debounceFrame(() => this.drawNow());
      this.drawOver = dom.debounceFrame(() => this.drawOverNow());
    }

    /**
     * Canvases first, words after: reading a size after a word was written would lay the page out once more.
     */
    drawNow() {
      const { heat } = this.nodes;
      const sight = this.sight();
      this.map.draw(sight.triangle, look);
      this.drawOverNow(sight);
      writeTop(heat.top, sight);
      writeZoom(heat.zoom, this.map);
      writeHooks(heat.map, sight);
      writeEmpty(heat.empty, sight);
      this.markWaiting(sight);
    }

    drawOverNow({ layer, head, query, key } = this.sight()) {
      const { heat } = this.nodes;
      glassbox.overlay.drawOverlay(heat.over, this.map, { query, key, selected: store.selection.position });
      const { width, height } = this.noteSize();
      this.readout({ layer, head, query, key }, { ...look, roomForNote: this.map.cornerFree(width, height) });
    }

    /** Room that the note needs; measured while it is seen, so that it does not flicker. */
    noteSize() {
      const { note } = this.nodes.heat;
      if (!note.hidden) this.lastNote = { width: note.offsetWidth, height: note.offsetHeight };
      return this.lastNote || { width: 214, height: 150 };
    }

    /** Pales the picture when it is not of the head asked for and that one takes a while. */
    markWaiting({ layer, head, triangle }) {
      const { heat } = this.nodes.heat;
      const asked = glassbox.looking();
      const other = triangle != null && (layer !== asked.layer || head !== asked.head);
      clearTimeout(this.waiting);
      if (!other) heat.classList.remove('waiting');
      else this.waiting = setTimeout(() => heat.classList.add('waiting'), WAITING_MS);
    }

    resetTexts() {
      const { panel } = this.nodes;
      dom.translate(panel);
      this.grid.draw();
      this.draw();
    }

    onTokens() {
      this.map.runs = glassbox.heatmap.roleRuns(store.tokens);
      this.grid.feed.refresh();
      this.draw();
    }

    onSelection({ head, position }) {
      if (head) patterns.want(store.selection.layer, store.selection.head);
      if (head) this.grid.draw();
      if (position && !store.selection.follow) this.map.reveal(store.selection.position);
      this.draw();
    }

    onHover(hover) {
      const head = hover && hover.layer != null ? `${hover.layer}/${hover.head}` : '';
      if (head === this.hovered) return this.drawOver();
      this.hovered = head;
      this.preview();
      this.grid.draw();
      return this.draw();
    }

    onState() {
      if (this.streaming === store.streaming) return;
      this.streaming = store.streaming;
      this.grid.feed.refresh(!store.streaming);
      this.draw();
    }

    /** Keys on the heatmap: another row is selected, another key of the selected row is pointed at. */
    step(rows, keys) {
      const query = Math.min(store.selection.position, this.map.rows - 1);
      if (query < 0) return;
      const { hover } = store;
      glassbox.hoverAt(null);
      if (rows) glassbox.select({ position: Math.max(0, query + rows) });
      if (rows) return;
      const from = hover && hover.query === query && hover.key >= 0 ? hover.key + keys : query;
      glassbox.hoverAt({ query, key: Math.max(0, Math.min(query, from)) });
    }
  }

  function listen(panel) {
    glassbox.on('hello', () => {
      patterns.clear();
      panel.grid.feed.refresh(true);
      panel.draw();
    });
    glassbox.on('attention', panel.draw);
    glassbox.on('attention-failed', (text) => {
      panel.nodes.heat.line.textContent = text;
    });
    glassbox.on('tokens', () => panel.onTokens());
    glassbox.on('selection', (change) => panel.onSelection(change));
    glassbox.on('hover', (hover) => panel.onHover(hover));
    glassbox.on('state', () => panel.onState());
    glassbox.on('theme', () => panel.resetTexts());
    glassbox.on('lang', () => panel.resetTexts());
  }

  function attachControls(panel) {
    const { grid, heat } = panel.nodes;
    const relook = (change) => {
      Object.assign(look, change);
      glassbox.emit('attention', { ...store.selection, from: 0 });
    };
    grid.metric.addEventListener('change', () => {
      panel.grid.feed.metric = grid.metric.value;
      panel.grid.feed.refresh(true);
    });
    heat.top.scale.addEventListener('change', () => relook({ scale: heat.top.scale.value }));
    heat.top.sink.input.addEventListener('change', () => relook({ skipFirst: heat.top.sink.input.checked }));
    heat.zoom.addEventListener('click', () => {
      panel.map.reset();
      panel.draw();
    });
    const gestures = {
      hover: (cell) => glassbox.hoverAt(cell),
      pick: (query) => glassbox.select({ position: query }),
      view: () => panel.draw(),
      step: (rows, keys) => panel.step(rows, keys),
    };
    glassbox.gestures.attachPointer(panel.map, gestures);
    glassbox.gestures.attachKeys(panel.map, gestures);
    const resized = new ResizeObserver(() => {
      panel.grid.draw();
      panel.draw();
    });
    resized.observe(heat.heat);
    resized.observe(grid.canvas);
  }

  glassbox.widgets.attention = (root) => {
    const panel = new Panel(root);
    listen(panel);
    attachControls(panel);
    panel.resetTexts();
    if (!store.sid) return;
    panel.onTokens();
    patterns.want(store.selection.layer, store.selection.head);
  };
})();

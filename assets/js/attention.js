/**
 * The attention panel: the grid of heads, and what is looked at as a map, as lines or as the shaded text. This file holds
 * it together: what is shown, what has to be fetched for it, and when it is drawn.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, patterns, looks, sights } = glassbox;

  const PREVIEW_MS = 80;
  const WAITING_MS = 120;

  const isDifference = () => looks.pin && looks.versus === 'difference' && looks.view === 'map';

  /** What the panel shows of a place; a difference where one was asked for and there can be one. */
  function shownAt(place) {
    return (isDifference() && sights.differenceAt(place)) || null;
  }

  /** What has to be kept whole: what is selected, and what it is compared with. */
  function wantedSights() {
    const { selection } = store;
    const difference = shownAt(selection);
    if (difference) return [difference];
    const main = sights.sightAt(selection);
    return looks.pin ? [main, sights.pinnedSight()] : [main];
  }

  /** The sight looked at, with its pattern; or the one painted last while its cells are on the way. */
  function makeSight() {
    let painted = null;
    return () => {
      const { query, key, ...place } = glassbox.looking();
      const asked = shownAt(place) || sights.currentSight();
      const selected = shownAt(store.selection) || sights.sightAt(store.selection);
      for (const sight of [asked, selected, painted]) {
        const pattern = sight && patterns.get(sight);
        if (!pattern || !pattern.n) continue;
        painted = sight;
        return { sight, asked, pattern, query: Math.min(query, pattern.n - 1), key };
      }
      painted = null;
      return { sight: asked, asked, pattern: null, query: -1, key: -1 };
    };
  }

  class Panel {
    constructor(root) {
      this.nodes = glassbox.attentionNodes(root);
      const { grid, heat, others, line, table } = this.nodes;
      this.sight = makeSight();
      this.grid = new glassbox.HeadGrid(grid);
      this.map = new glassbox.heatmap.Heatmap(heat.main.map);
      this.beside = new glassbox.heatmap.Heatmap(heat.pinned.map);
      this.lines = new glassbox.Lines(others.linesCanvas);
      this.text = new glassbox.TextView(others.scroll);
      this.readout = glassbox.readout.makeReadout({ note: heat.note, line, table });
      this.draw = dom.debounceFrame(() => this.drawNow());
      this.drawOver = dom.debounceFrame(() => this.drawOverNow());
      this.closed = false;
    }

    // ---- drawing ----

    /**
     * Canvases first, words after: reading a size after a word was written would lay the page out once more.
     */
    drawNow() {
      if (this.closed || !store.model) return;
      const sight = this.sight();
      this[`draw_${looks.view}`](sight);
      glassbox.attentionHead.write(this.nodes, sight, this.bar);
      this.markWaiting(sight);
    }

    draw_map(sight) {
      this.map.draw(sight.pattern);
      const beside = looks.pin && !isDifference();
      if (beside) this.drawBeside();
      this.bar = sight.pattern && { kind: sight.sight.kind, bar: glassbox.picture.barOf(sight.pattern) };
      this.drawOverNow(sight);
    }

    /** The pinned pattern, in the same part of the text. */
    drawBeside() {
      const { beside, map } = this;
      beside.runs = map.runs;
      Object.assign(beside, { view: { ...map.view }, zoomed: map.zoomed, room: map.room });
      beside.draw(patterns.get(sights.pinnedSight()));
    }

    draw_lines(sight) {
      this.lines.draw(sight.pattern, sight);
      this.bar = sight.pattern && { kind: sight.sight.kind, bar: glassbox.picture.barOf(sight.pattern) };
      this.readout(sight, false);
    }

    draw_text(sight) {
      const shown = sight.pattern || store.tokens.length ? this.text.draw(sight.sight, glassbox.looking()) : null;
      this.bar = shown || this.bar;
      this.readout(sight, false);
    }

    drawOverNow(sight = this.sight()) {
      if (looks.view !== 'map') return this.draw();
      const { heat } = this.nodes;
      const { query, key } = sight;
      const { pin } = looks;
      const own = pin && pin.branch === store.branch ? pin.position : -1;
      const pinned = isDifference() ? own : -1;
      glassbox.overlay.drawOverlay(dom.fitCanvas(heat.main.over).g, this.map, { query, key, selected: store.selection.position, pinned });
      if (pin && !isDifference()) {
        const a = store.hover && store.hover.query >= 0 ? query : pin.position;
        glassbox.overlay.drawOverlay(dom.fitCanvas(heat.pinned.over).g, this.beside, { query: own < 0 ? -1 : a, key, selected: own });
        glassbox.readout.fillBest(heat.pinned.best, { sight: sights.pinnedSight(), query: a }, this.beside);
        glassbox.readout.fillBest(heat.main.best, sight, this.map);
      }
      const { width, height } = this.noteSize();
      return this.readout(sight, this.map.cornerFree(width, height));
    }

    /** Room that the note needs; measured while it is seen, so that it does not flicker. */
    noteSize() {
      const { note } = this.nodes.heat;
      if (!note.hidden) this.lastNote = { width: note.offsetWidth, height: note.offsetHeight };
      return this.lastNote || { width: 214, height: 150 };
    }

    /** Pales the picture when it is not of what was asked for and that takes a while. */
    markWaiting({ sight, asked, pattern }) {
      const { heat } = this.nodes.heat;
      const other = pattern !== null && sight.key !== asked.key;
      clearTimeout(this.waiting);
      if (!other) heat.classList.remove('waiting');
      else this.waiting = setTimeout(() => heat.classList.add('waiting'), WAITING_MS);
    }

    /** Everything anew: another language, another theme, other controls. */
    redraw() {
      dom.translate(this.nodes.panel);
      glassbox.attentionHead.writeControls(this.nodes);
      this.grid.draw();
      this.draw();
    }

    // ---- what happens ----

    onTokens({ from = 0, truncated = false } = {}) {
      this.map.runs = glassbox.heatmap.roleRuns(store.tokens);
      if (truncated || looks.view === 'text') this.text.update(truncated ? from : undefined);
      this.grid.feed.refresh();
      this.draw();
    }

    onSelection({ head, position }) {
      if (head) this.keep();
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

    /** Pulls a hovered head once the pointer has rested on it. */
    preview() {
      clearTimeout(this.previewing);
      const { query, key, ...place } = glassbox.looking();
      const sight = shownAt(place) || sights.currentSight();
      if (!store.rows || patterns.isComplete(sight) || query === key) return;
      this.previewing = setTimeout(() => patterns.pull(sight).catch(() => undefined), PREVIEW_MS);
    }

    onLook(changed) {
      const { heat } = this.nodes.heat;
      heat.classList.toggle('two', Boolean(looks.pin) && looks.versus === 'side');
      if (!changed.every((name) => ['least', 'way', 'unit', 'scale'].includes(name))) this.keep();
      glassbox.attentionHead.writeControls(this.nodes);
      this.grid.draw();
      this.draw();
    }

    onState() {
      if (this.streaming === store.streaming) return;
      this.streaming = store.streaming;
      this.grid.feed.refresh(!store.streaming);
      this.draw();
    }

    keep() {
      if (store.sid && store.model) patterns.want(this.closed ? [] : wantedSights());
    }

    /** Out of sight: nothing is drawn, pushed or pulled. */
    close(closed) {
      if (this.closed === closed) return;
      this.closed = closed;
      this.grid.feed.close(closed);
      this.keep();
      if (closed) return;
      this.text.update(0);
      this.grid.draw();
      this.draw();
    }

    /** Shows a part of the map. */
    zoomTo(view) {
      Object.assign(this.map, { view, zoomed: true });
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
      panel.keep();
      panel.redraw();
    });
    glassbox.on('attention', panel.draw);
    glassbox.on('attention-failed', (text) => {
      panel.nodes.line.textContent = text;
    });
    glassbox.on('tokens', (change) => panel.onTokens(change));
    glassbox.on('branches', () => looks.pin && panel.redraw());
    glassbox.on('selection', (change) => panel.onSelection(change));
    glassbox.on('hover', (hover) => panel.onHover(hover));
    glassbox.on('look', (changed) => panel.onLook(changed));
    glassbox.on('state', () => panel.onState());
    glassbox.on('theme', () => panel.redraw());
    glassbox.on('lang', () => panel.redraw());
  }

  function observe(panel) {
    const { grid, heat, others, panel: node } = panel.nodes;
    const resized = new ResizeObserver(() => {
      panel.grid.draw();
      panel.draw();
    });
    for (const box of [heat.heat, grid.canvas, others.lines]) resized.observe(box);
    new IntersectionObserver(([entry]) => panel.close(!entry.isIntersecting)).observe(node);
  }

  glassbox.widgets.attention = (root) => {
    const panel = new Panel(root);
    listen(panel);
    glassbox.attentionControls(panel);
    observe(panel);
    panel.redraw();
    glassbox.attentionPanel = panel;
    if (!store.sid) return;
    panel.onTokens();
    panel.keep();
  };
})();

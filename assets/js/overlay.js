/**
 * What moves with the pointer over the heatmap: outlines of the query's row and the key's column, and their
 * chips.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;

  const CHIP = 16;
  const CHIP_TEXT = 96;

  /** A token's text on a filled label; `align` 'right' ends it at x, 'center' centres it there. */
  function chip(g, box, { text, x, y, align, colour, width }) {
    g.font = `600 11px ${dom.css('--sans')}`;
    const shown = glassbox.heatmap.clipText(g, text, width);
    const wide = g.measureText(shown).width + 8;
    const left = align === 'right' ? x - wide : x - wide / 2;
    const at = Math.max(align === 'right' ? 0 : box.x0, Math.min(left, box.w - wide));
    g.fillStyle = colour;
    g.beginPath();
    g.roundRect(at, y - CHIP / 2, wide, CHIP, 3);
    g.fill();
    g.fillStyle = dom.css('--sur');
    g.textAlign = 'left';
    g.textBaseline = 'middle';
    g.fillText(shown, at + 4, y + 0.5);
  }

  const textOf = (i) => dom.marked(dom.tokenText(store.tokens[i]));

  /** The position that is compared with: its row in a broken line, its letter at the end. */
  function outlinePinned(g, map, query) {
    if (query < 0 || query >= map.rows) return;
    g.setLineDash([3, 2]);
    outlineRow(g, map, query, dom.css('--ink3'), 1);
    g.setLineDash([]);
  }

  function outlineRow(g, map, query, colour, width) {
    const { view, box } = map;
    if (query + 1 <= view.y || query >= view.y + view.n) return;
    const top = Math.max(0, map.rowY(query));
    const bottom = Math.min(box.size, map.rowY(query + 1));
    const right = Math.min(query + 1 - view.x, view.n) * box.cell;
    if (right <= 0) return;
    g.strokeStyle = colour;
    g.lineWidth = width;
    g.strokeRect(box.x0 - 0.5, top - 0.75, right + 1, Math.max(2, bottom - top) + 1.5);
  }

  function outlineColumn(g, map, key, colour) {
    const { view, box } = map;
    if (key + 1 <= view.x || key >= view.x + view.n) return;
    const left = Math.max(box.x0, map.columnX(key));
    const right = Math.min(box.x0 + box.size, map.columnX(key + 1));
    const top = Math.max(0, map.rowY(key));
    const bottom = Math.min(box.size, map.rowY(map.rows));
    if (bottom <= top) return;
    g.strokeStyle = colour;
    g.lineWidth = 1;
    const wide = Math.max(1, Math.ceil(right - left));
    g.strokeRect(Math.round(left) - 1.5, top - 0.5, wide + 2, bottom - top + 1);
    chip(g, box, {
      text: textOf(key), x: (left + right) / 2, y: box.size + 14, align: 'center', colour, width: CHIP_TEXT,
    });
  }

  /**
   * @param {CanvasRenderingContext2D} g of a canvas that lies over the heatmap's
   * @param {object} map the Heatmap below
   * @param {{query: number, key: number, selected: number, pinned?: number}} look -1 for none
   */
  function drawOverlay(g, map, { query, key, selected, pinned = -1 }) {
    const { box, view } = map;
    if (!map.rows || !box.cell) return;
    if (selected !== query && selected >= 0 && selected < map.rows) {
      outlineRow(g, map, selected, dom.css('--line2'), 1);
    }
    outlinePinned(g, map, pinned);
    if (key >= 0) outlineColumn(g, map, key, dom.css('--k'));
    if (query < 0 || query >= map.rows) return;
    outlineRow(g, map, query, dom.css('--q'), 1.5);
    if (query + 1 <= view.y || query >= view.y + view.n) return;
    const y = Math.max(CHIP / 2, Math.min(box.size - CHIP / 2, map.rowY(query + 0.5)));
    chip(g, box, {
      text: textOf(query), x: box.x0 - 6, y, align: 'right', colour: dom.css('--q'), width: box.x0 - 14,
    });
  }

  glassbox.overlay = { drawOverlay };
})();

/**
 * What the attention panel shows as a figure of its own: a title that says of what, the view as it is, its colour bar. Drawn
 * by the views' own code, on a canvas for a picture or on a surface that writes SVG.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, looks, sights } = glassbox;

  const MARGIN = 24;
  const TITLE = 52; // pixels above the view
  const BAR = [120, 8];
  const STEPS = 48; // pieces of the colour bar
  const DENSITY = 3; // pixels of a picture for each of the screen

  /** What the figure is of, in two lines. */
  function captions(shown) {
    const { t } = glassbox;
    const compared = looks.pin ? `A ${sights.shortName(sights.pinnedSight())}, B ${sights.shortName(sights.sightAt(store.selection))}` : '';
    const kind = t(`attn_what_${shown.sight.kind}`);
    return [[compared || sights.sightName(shown.sight), kind].join(', '), `${store.model.name}, ${t('meta_tokens', store.tokens.length)}`];
  }

  function drawTitle(g, shown, width) {
    const [title, from] = captions(shown);
    g.textAlign = 'left';
    g.textBaseline = 'alphabetic';
    g.fillStyle = dom.css('--ink');
    g.font = `600 13px ${dom.css('--sans')}`;
    g.fillText(title, 0, -30);
    g.fillStyle = dom.css('--ink3');
    g.font = `11px ${dom.css('--sans')}`;
    g.fillText(from, 0, -13);
    drawBar(g, glassbox.attentionPanel.bar, width);
  }

  function drawBar(g, shown, width) {
    if (!shown) return;
    const { kind, bar } = shown;
    const [w, h] = BAR;
    const left = width - w;
    for (let i = 0; i < STEPS; i++) {
      const share = i / (STEPS - 1);
      g.fillStyle = glassbox.picture.colourOf(kind, kind === 'difference' ? 2 * share - 1 : share);
      g.fillRect(left + (i * w) / STEPS, -38, w / STEPS + 0.5, h);
    }
    g.fillStyle = dom.css('--ink3');
    const end = (value) => glassbox.readout.format(kind === 'difference' ? 'score' : kind, value);
    g.textAlign = 'left';
    g.fillText(end(bar.low), left, -16);
    g.textAlign = 'right';
    g.fillText(end(bar.high), width, -16);
    g.textAlign = 'center';
    g.fillText(glassbox.t(`attn_scale_${glassbox.picture.scaleOf(kind)}`), left + w / 2, -16);
  }

  // ---- the views ----

  function drawMaps(g, panel) {
    const { query, key } = panel.sight();
    const { position } = store.selection;
    const { heat } = panel.nodes;
    const left = heat.heat.getBoundingClientRect().left;
    for (const [map, { box }] of [[panel.beside, heat.pinned], [panel.map, heat.main]]) {
      if (box.hidden || !map.rows) continue;
      const { w, h } = map.box;
      g.save();
      g.translate(box.getBoundingClientRect().left - left, 0);
      g.font = `11px ${dom.css('--sans')}`;
      map.paint({ g, w, h });
      glassbox.overlay.drawOverlay(g, map, { query, key, selected: position });
      g.restore();
    }
  }

  /** The text as the browser laid it out: every piece of a line where it stands. */
  function drawText(g, panel) {
    const { scroll } = panel.nodes.others;
    const frame = scroll.getBoundingClientRect();
    const range = document.createRange();
    const visible = ({ top, bottom, width }) => width > 0 && bottom > frame.top && top < frame.bottom;
    g.textBaseline = 'middle';
    g.textAlign = 'left';
    for (const span of scroll.querySelectorAll('.rname, .t')) {
      const ink = span.lastElementChild || span;
      if (!visible(span.getBoundingClientRect())) continue;
      g.fillStyle = ink.style.backgroundColor || 'transparent';
      if (ink.style.backgroundColor) {
        for (const box of ink.getClientRects()) g.fillRect(box.left - frame.left, box.top - frame.top, box.width, box.height);
      }
      const style = getComputedStyle(span);
      g.fillStyle = style.color;
      g.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`.replace(/(\d+)\.?\d*px/, '$1px');
      drawPieces(g, span, range, frame);
    }
  }

  function drawPieces(g, span, range, frame) {
    const walker = document.createTreeWalker(span, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      let [from, top] = [0, NaN];
      const flush = (to) => {
        const text = node.data.slice(from, to).replace(/\n/g, '');
        range.setStart(node, from);
        range.setEnd(node, to);
        const box = range.getBoundingClientRect();
        if (text.trim()) g.fillText(text, box.left - frame.left, (box.top + box.bottom) / 2 - frame.top);
      };
      for (let i = 0; i < node.length; i++) {
        range.setStart(node, i);
        range.setEnd(node, i + 1);
        const box = range.getBoundingClientRect();
        if (i > from && box.width && Math.abs(box.top - top) > 4) {
          flush(i);
          from = i;
        }
        if (box.width) top = box.top;
      }
      if (node.length) flush(node.length);
    }
  }

  const VIEWS = {
    map: { box: ({ nodes }) => nodes.heat.heat, draw: drawMaps },
    lines: { box: ({ nodes }) => nodes.others.lines, draw: (g, panel) => panel.lines.pattern && panel.lines.paint({ g }) },
    text: { box: ({ nodes }) => nodes.others.scroll, draw: drawText },
  };

  /** Draws the figure but for its background; `surface(width, height)` gives what is drawn on. */
  function draw(surface) {
    const panel = glassbox.attentionPanel;
    const view = VIEWS[looks.view];
    const { width, height } = view.box(panel).getBoundingClientRect();
    const g = surface(width + 2 * MARGIN, height + TITLE + 2 * MARGIN);
    g.translate(MARGIN, MARGIN + TITLE);
    drawTitle(g, panel.sight(), width);
    g.font = `11px ${dom.css('--sans')}`;
    view.draw(g, panel);
  }

  function fillBackground(g, width, height) {
    g.fillStyle = dom.css('--bg');
    g.fillRect(0, 0, width, height);
  }

  /** A picture of the figure as a Blob; its background comes last, under everything, because maps clear what they cover. */
  function png() {
    const canvas = document.createElement('canvas');
    draw((width, height) => {
      Object.assign(canvas, { width: Math.round(width * DENSITY), height: Math.round(height * DENSITY) });
      const g = canvas.getContext('2d');
      g.scale(DENSITY, DENSITY);
      return g;
    });
    const g = canvas.getContext('2d');
    g.resetTransform();
    g.globalCompositeOperation = 'destination-over';
    fillBackground(g, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  }

  /** The figure as the text of an SVG file. */
  function svg() {
    let surface = null;
    draw((width, height) => {
      surface = new glassbox.SvgSurface(Math.round(width), Math.round(height));
      fillBackground(surface, width, height);
      return surface;
    });
    return surface.toString();
  }

  glassbox.figure = { png, svg };
})();

/**
 * Small helpers for drawing: elements, icons, canvases, colours, numbers. Text only ever enters as
 * textContent.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const SVG = 'http://www.w3.org/2000/svg';

  /** Path data on a 16 x 16 field; a leading '*' fills instead of stroking. */
  const ICONS = {
    brand: ['M2.8 5.2 8 2.4l5.2 2.8v5.6L8 13.6l-5.2-2.8z', 'M2.8 5.2 8 8l5.2-2.8M8 8v5.6'],
    theme: ['M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0z', '*M8 2.5a5.5 5.5 0 0 1 0 11z'],
    help: ['M5.7 6a2.3 2.3 0 1 1 3.4 2c-.8.5-1.1.9-1.1 1.7', 'M8 12.2v.1'],
    share: ['M8 10V2.5M5 5l3-2.5L11 5M3.5 8.5v5h9v-5'],
    send: ['M8 13V3.5M4 7l4-3.8L12 7'],
    stop: ['*M5 4.5h6a.5.5 0 0 1 .5.5v6a.5.5 0 0 1-.5.5H5a.5.5 0 0 1-.5-.5V5a.5.5 0 0 1 .5-.5z'],
    step: ['M4 3.5v9l6-4.5zM12 3.5v9'],
    resume: ['M4 3.5v9L11.5 8z'],
    again: ['M12.8 8a4.8 4.8 0 1 1-1.5-3.5M12.8 2.5v2.6h-2.6'],
    dice: [
      'M4 2.8h8A1.2 1.2 0 0 1 13.2 4v8a1.2 1.2 0 0 1-1.2 1.2H4A1.2 1.2 0 0 1 2.8 12V4A1.2 1.2 0 0 1 4 2.8z',
      'M5.6 5.6h.01M10.4 10.4h.01M8 8h.01',
    ],
    add: ['M8 3.5v9M3.5 8h9'],
    edit: ['M3 13l.6-2.8 7-7a1.3 1.3 0 0 1 1.9 0l.3.3a1.3 1.3 0 0 1 0 1.9l-7 7z', 'M9.4 4.4l2.2 2.2'],
    copy: ['M6 5.5h6.5v8H6z', 'M3.5 10.5v-8H10'],
    check: ['m3.5 8.5 3 3 6-7'],
    close: ['m4 4 8 8M12 4l-8 8'],
    play: ['*M5 3.2v9.6l7.5-4.8z'],
    pause: ['*M5 3.5h2v9H5zM9 3.5h2v9H9z'],
    right: ['m6 4 4 4-4 4'],
    down: ['m4 6 4 4 4-4'],
    up: ['m4 10 4-4 4 4'],
    undo: ['M3.2 8a4.8 4.8 0 1 0 1.5-3.5M3.2 2.5v2.6h2.6'],
    grip: ['M6 4.5h.01M10 4.5h.01M6 8h.01M10 8h.01M6 11.5h.01M10 11.5h.01'],
    several: ['M2.8 2.8h4.2v4.2H2.8zM9 2.8h4.2v4.2H9zM2.8 9h4.2v4.2H2.8zM9 9h4.2v4.2H9z'],
    compare: ['M2.8 3h4v10h-4zM9.2 3h4v10h-4z'],
    bin: ['M3 4.5h10M6.3 4.3V2.8h3.4v1.5M4.3 4.5l.6 8.7h6.2l.6-8.7'],
    link: [
      'M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-1 1',
      'M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l1-1',
    ],
    save: ['M8 2.5v7.5M5 7.2l3 2.9 3-2.9M3 12.8h10'],
    open: ['M2.5 12.5v-9h4l1.3 1.7h5.7v7.3z'],
    grid: ['M2.8 2.8h10.4v10.4H2.8z', 'M2.8 6.3h10.4M2.8 9.7h10.4M6.3 2.8v10.4M9.7 2.8v10.4'],
    table: ['M2.5 3.5h11v9h-11z', 'M2.5 6.5h11M7 3.5v9'],
    braces: [
      'M6 3c-1.5 0-2 .6-2 1.7v1.6C4 7.4 3.5 8 2.5 8c1 0 1.5.6 1.5 1.7v1.6C4 12.4 4.5 13 6 13',
      'M10 3c1.5 0 2 .6 2 1.7v1.6c0 1.1.5 1.7 1.5 1.7-1 0-1.5.6-1.5 1.7v1.6c0 1.1-.5 1.7-2 1.7',
    ],
    sort: ['M3 4h10M3 8h7M3 12h4'],
    search: ['M11 7a4 4 0 1 1-8 0 4 4 0 0 1 8 0z', 'm10 10 3.5 3.5'],
    warn: ['M8 2.8 14 13H2z', 'M8 6.8v2.8M8 11.4v.1'],
  };

  /** A new element with a class and a text. */
  function el(tag, cls, text) {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text != null) node.textContent = text;
    return node;
  }

  function svg(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    return node;
  }

  /** A line icon of 16 px that takes the colour of its text. */
  function icon(name) {
    const node = svg('svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true' });
    for (const path of ICONS[name]) {
      const fill = path[0] === '*';
      node.append(svg('path', { d: fill ? path.slice(1) : path, ...(fill && { class: 'fill' }) }));
    }
    return node;
  }

  /** A button of one icon; its tip, read aloud too, is the string `key` in the page's language. */
  function iconButton(name, key, action, id) {
    const button = el('button', 'icon');
    button.type = 'button';
    if (id) button.id = id;
    button.dataset.tip = key;
    button.append(icon(name));
    button.addEventListener('click', action);
    return button;
  }

  /** Writes a text where it is not there yet: what stays the same costs no layout. */
  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  /** Writes texts ([data-t]) and tips ([data-tip]) below `root` in the page's language. */
  function translate(root) {
    for (const node of root.querySelectorAll('[data-t]')) node.textContent = glassbox.t(node.dataset.t);
    for (const node of root.querySelectorAll('[data-tip]')) {
      node.title = glassbox.t(node.dataset.tip);
      node.setAttribute('aria-label', node.title);
    }
  }

  const VISIBLE = { ' ': '·', '\n': '↵', '\t': '→', '\r': '␍' };

  /** Token text with spaces and newlines drawn: each in a pale span, the rest as it is. */
  function mark(node, text) {
    for (const run of String(text).match(/[ \n\t\r]|[^ \n\t\r]+/g) || []) {
      if (run in VISIBLE) node.append(el('span', 'sp', VISIBLE[run]));
      else node.append(run);
    }
    return node;
  }

  /** The same as plain text, for canvases. */
  const marked = (text) => String(text).replace(/[ \n\t\r]/g, (c) => VISIBLE[c]);

  /** What to call a token alone: its text, or for part of a split character its bytes. */
  function tokenText(token) {
    if (!token) return '';
    return token.s === '' && token.b ? `⟨${token.b.replace(/../g, '$& ').trim()}⟩` : token.s;
  }

  // ---- canvas ----

  /**
   * Boxes of the canvases drawn so far: measuring one at every token would make the browser lay the page out.
   */
  const boxes = new WeakMap();
  const observer = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) boxes.set(target, contentRect);
  });

  function boxOf(canvas) {
    if (!boxes.has(canvas)) {
      boxes.set(canvas, canvas.getBoundingClientRect());
      observer.observe(canvas);
    }
    return boxes.get(canvas);
  }

  /** Sizes a canvas to its box at the screen's density and clears it; lengths are CSS pixels from then on. */
  function fitCanvas(canvas) {
    const { width: w, height: h } = boxOf(canvas);
    const density = window.devicePixelRatio || 1;
    const size = [Math.round(w * density), Math.round(h * density)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const g = canvas.getContext('2d');
    g.setTransform(density, 0, 0, density, 0, 0);
    g.clearRect(0, 0, w, h);
    g.font = `11px ${css('--sans')}`;
    return { g, w, h };
  }

  // ---- colour ----

  const cache = new Map();
  let ramps = {};
  glassbox.on('theme', () => {
    cache.clear();
    ramps = {};
  });

  /** A custom property of the current theme, read once per theme. */
  function css(name) {
    if (!cache.has(name)) {
      cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    }
    return cache.get(name);
  }

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  function makeRamp() {
    const stops = ['--at0', '--at1', '--at2', '--at3', '--at4'].map((name) => channels(css(name)));
    const rgb = new Array(256);
    const u32 = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * 4;
      const low = Math.min(3, Math.floor(at));
      const [r, g, b] = stops[low].map((c, j) => Math.round(c + (stops[low + 1][j] - c) * (at - low)));
      rgb[i] = `rgb(${r},${g},${b})`;
      u32[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
    return { rgb, u32 };
  }

  /** The attention ramp of the current theme: 256 colours as text and as little-endian RGBA words. */
  function lut() {
    if (!css('--at0')) return makeRampless();
    ramps[glassbox.store.theme] ||= makeRamp();
    return ramps[glassbox.store.theme];
  }

  /** Before the style sheet has loaded there are no colours; nothing is remembered. */
  function makeRampless() {
    cache.clear();
    return { rgb: new Array(256).fill('transparent'), u32: new Uint32Array(256) };
  }

  /** The ramp as a CSS gradient, for colour bars. */
  const ramp = () => `linear-gradient(to right,${[0, 64, 128, 191, 255].map((i) => lut().rgb[i]).join(',')})`;

  // ---- numbers ----

  /** A probability as percent with one decimal: '29.5', '100', '<0.1'. */
  const pct = (p) => (p >= 0.9995 ? '100' : p >= 0.0005 || p === 0 ? (p * 100).toFixed(1) : '<0.1');
  const f3 = (x) => x.toFixed(3);
  /** Thousands separated: 8,192. */
  const int = (n) => Math.round(n).toLocaleString('en');
  const bits = (nats) => nats / Math.LN2;

  /** Calls `draw` at most once a frame, however often it is asked. */
  function debounceFrame(draw) {
    let asked = 0;
    return () => {
      if (asked) return;
      asked = requestAnimationFrame(() => {
        asked = 0;
        draw();
      });
    };
  }

  glassbox.dom = {
    el,
    svg,
    icon,
    iconButton,
    setText,
    translate,
    mark,
    marked,
    tokenText,
    fitCanvas,
    css,
    channels,
    lut,
    ramp,
    pct,
    f3,
    int,
    bits,
    debounceFrame,
  };
})();

/**
 * What opens over the page: a card at the control that asked for it, closed by a click beside it; a view over the
 * chat and the attention panel; a question that must be answered. Escape closes the uppermost and the focus goes
 * back to where it was.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el, iconButton, translate } = glassbox.dom;

  const EDGE = 12;
  const GAP = 6;
  const COVERED = ['chat', 'attention'];

  /** @typedef {{node: HTMLElement, close: () => void, anchor: HTMLElement|null, atEnd: boolean, back: Element|null,
   *   view: boolean, onClose: () => void}} Layer */
  /** @type {Layer[]} */ const open = [];

  // ---- where a card stands ----

  /**
   * Above its anchor or below it, where there is more room, inside the window; its left edges in line with the
   * anchor's, or its right ones with `atEnd`.
   */
  function place({ node, anchor, atEnd }) {
    const at = anchor.getBoundingClientRect();
    node.style.maxHeight = '';
    const { width, height } = node.getBoundingClientRect();
    const above = at.top - GAP - EDGE;
    const below = window.innerHeight - at.bottom - GAP - EDGE;
    const room = Math.max(above, below);
    const tall = Math.min(height, room);
    const wanted = atEnd ? at.right - width : at.left;
    const left = Math.max(EDGE, Math.min(window.innerWidth - width - EDGE, wanted));
    node.style.maxHeight = `${room}px`;
    node.style.left = `${left}px`;
    node.style.top = `${above > below ? at.top - GAP - tall : at.bottom + GAP}px`;
  }

  /** What a view covers can be reached neither by Tab nor by a screen reader. */
  function coverPanels() {
    const views = open.some(({ view }) => view);
    const narrow = window.matchMedia('(min-width: 641px) and (max-width: 1180px)').matches;
    for (const name of [...COVERED, 'sampling']) {
      const panel = document.getElementById(name);
      if (panel) panel.inert = views && (narrow || COVERED.includes(name));
    }
  }

  // ---- opening and closing ----

  function remove(layer) {
    const at = open.indexOf(layer);
    if (at < 0) return;
    open.splice(at, 1);
    const inside = layer.node.contains(document.activeElement) || document.activeElement === document.body;
    layer.node.remove();
    coverPanels();
    if (inside && layer.back && layer.back.isConnected) layer.back.focus();
    layer.onClose();
  }

  function onKey(event, layer) {
    if (event.key !== 'Escape' || event.defaultPrevented) return;
    event.preventDefault();
    event.stopPropagation();
    layer.close();
  }

  function build({ id, label, cls = '' }) {
    const node = el('div', `gb-layer ${cls}`);
    node.id = id;
    node.tabIndex = -1;
    node.setAttribute('role', 'dialog');
    node.setAttribute('aria-label', label);
    return node;
  }

  function add(options, view) {
    const { anchor = null, atEnd = false, onClose = () => {} } = options;
    const layer = { node: build(options), anchor, atEnd, view, back: document.activeElement, onClose };
    layer.close = () => remove(layer);
    layer.node.addEventListener('keydown', (event) => onKey(event, layer));
    open.push(layer);
    return layer;
  }

  const opened = (id) => open.find(({ node }) => node.id === id) || null;

  /**
   * Opens a card at `anchor`, or closes it when it is open there. `fill(node, close)` draws it.
   * @returns {Layer|null}
   */
  function openCard({ fill, ...options }) {
    const before = opened(options.id);
    for (const layer of open.filter(({ anchor }) => anchor)) layer.close();
    if (before && before.anchor === options.anchor) return null;
    const layer = add({ ...options, cls: `card ${options.cls || ''}` }, false);
    document.body.append(layer.node);
    fill(layer.node, layer.close);
    translate(layer.node);
    place(layer);
    (layer.node.querySelector('[data-first]') || layer.node).focus();
    return layer;
  }

  /** Opens a view over chat and attention: a head with a title, a close button and room for more. */
  function openView({ title, ...options }) {
    const before = opened(options.id);
    if (before) before.close();
    const layer = add({ label: title, ...options, cls: `gb-view ${options.cls || ''}` }, true);
    const head = el('header', 'vh');
    const name = el('h2', '', title);
    const tools = el('div', 'tools');
    head.append(name, tools, iconButton('close', 'back_to_chat', layer.close));
    layer.node.append(head);
    document.getElementById('glassbox').append(layer.node);
    coverPanels();
    translate(layer.node);
    layer.node.focus();
    return Object.assign(layer, { head, tools });
  }

  /** Closes the uppermost layer; false when there is none. */
  function closeTop() {
    const layer = open.at(-1);
    if (layer) layer.close();
    return Boolean(layer);
  }

  // ---- a question ----

  /**
   * Asks something that must be answered first. `choices` are [value, text] pairs, the last one is the likely one.
   * @returns {Promise<string|null>} the value chosen; null when it was dismissed
   */
  function ask(text, choices) {
    const dialog = el('dialog', 'gb-layer question');
    dialog.append(el('p', '', text));
    const row = el('div', 'row');
    for (const [value, label] of choices) {
      const button = el('button', 'btn', label);
      button.type = 'button';
      button.addEventListener('click', () => dialog.close(value));
      row.append(button);
    }
    row.lastChild.classList.add('strong');
    dialog.append(row);
    document.body.append(dialog);
    dialog.showModal();
    row.lastChild.focus();
    return new Promise((resolve) => {
      dialog.addEventListener('close', () => {
        dialog.remove();
        resolve(dialog.returnValue || null);
      });
    });
  }

  // ---- the page around it ----

  document.addEventListener('pointerdown', ({ target }) => {
    const layer = open.at(-1);
    if (!layer || !layer.anchor || layer.node.contains(target) || layer.anchor.contains(target)) return;
    layer.close();
  });
  window.addEventListener('resize', () => {
    open.filter(({ anchor }) => anchor).forEach(place);
    coverPanels();
  });

  Object.assign(glassbox, {
    ask,
    layers: {
      openCard,
      openView,
      closeTop,
      opened,
      place,
      covers: () => open.some(({ view }) => view),
    },
  });
})();

/**
 * What holds the panels together: on a tablet two of them are tabs, on a phone they are a sheet; and toasts.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, mark, tokenText, translate } = glassbox.dom;

  const PANELS = { attn: 'attention', samp: 'sampling' };
  const TOAST_MS = 2800;
  const SWIPE = 40; // pixels that open or close the sheet

  const isPhone = () => window.matchMedia('(max-width: 640px)').matches;
  const isOpen = () => document.body.dataset.sheet === 'open';

  function setSheet(open) {
    document.body.dataset.sheet = open ? 'open' : 'closed';
    for (const tab of document.querySelectorAll('.sidetabs [role=tab]'))
      tab.setAttribute('aria-expanded', String(open));
  }

  /** Shows one of the two panels where there is room for one only. */
  function showSide(side) {
    document.body.dataset.side = side;
    for (const tab of document.querySelectorAll('.sidetabs [role=tab]')) {
      const on = tab.dataset.side === side;
      tab.setAttribute('aria-selected', String(on));
      tab.tabIndex = on ? 0 : -1;
    }
  }

  function choose(side) {
    const same = document.body.dataset.side === side;
    showSide(side);
    if (isPhone()) setSheet(!(same && isOpen()));
  }

  function sideTab(side) {
    const tab = el('button');
    tab.type = 'button';
    tab.dataset.side = side;
    tab.dataset.t = PANELS[side];
    tab.setAttribute('role', 'tab');
    tab.setAttribute('aria-controls', PANELS[side]);
    tab.addEventListener('click', () => choose(side));
    return tab;
  }

  /** Left and right move between the tabs, as in every tab list. */
  function tabKeys(event) {
    if (!['ArrowLeft', 'ArrowRight'].includes(event.key)) return;
    const side = document.body.dataset.side === 'attn' ? 'samp' : 'attn';
    showSide(side);
    event.currentTarget.querySelector(`[data-side=${side}]`).focus();
    event.preventDefault();
    event.stopPropagation();
  }

  /** The sheet follows a swipe on its strip. */
  function addSwipe(strip) {
    let from = null;
    strip.addEventListener('pointerdown', (event) => {
      from = event.clientY;
    });
    window.addEventListener('pointerup', (event) => {
      if (from !== null && isPhone() && Math.abs(event.clientY - from) > SWIPE)
        setSheet(event.clientY < from);
      from = null;
    });
  }

  function drawSelected(node) {
    const { query } = glassbox.looking();
    const token = store.tokens[query];
    node.replaceChildren();
    if (token) mark(node, tokenText(token)).append(el('span', 'mut', ` ${query}`));
  }

  /** A phone's keyboard makes the page smaller, so that the message box stays in sight. */
  function makeRoomForKeyboard() {
    const viewport = document.querySelector('meta[name=viewport]');
    if (viewport && !viewport.content.includes('interactive-widget')) {
      viewport.content += ', interactive-widget=resizes-content';
    }
  }

  /** Adds the strip of side tabs to the page's grid, as a child of the bar's root. */
  function frame(root) {
    const strip = el('nav', 'sidetabs');
    const list = el('div', 'sidelist');
    list.setAttribute('role', 'tablist');
    list.dataset.tip = 'panels';
    list.append(sideTab('attn'), sideTab('samp'));
    list.addEventListener('keydown', tabKeys);
    const selected = el('span', 'sidesel num');
    const grab = el('span', 'grab');
    strip.append(grab, list, selected);
    root.append(strip);
    makeRoomForKeyboard();
    addSwipe(strip);
    grab.addEventListener('click', () => setSheet(!isOpen()));
    showSide(document.body.dataset.side || 'attn');
    setSheet(isOpen());
    const draw = glassbox.dom.debounceFrame(() => drawSelected(selected));
    for (const topic of ['selection', 'hover', 'tokens']) glassbox.on(topic, draw);
    translate(strip);
  }

  // ---- toasts ----

  let toastNode = null;
  let toastTimer = 0;

  /** A short text over the page that goes by itself. */
  function toast(text) {
    if (!toastNode) {
      toastNode = el('div', 'gb-layer toast num');
      toastNode.setAttribute('role', 'status');
      document.body.append(toastNode);
    }
    toastNode.textContent = text;
    toastNode.classList.add('on');
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => toastNode.classList.remove('on'), TOAST_MS);
  }

  /** The old way of copying, for pages that were not loaded over https or from this machine. */
  function copyBySelection(text) {
    const box = el('textarea', 'visually-hidden');
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand('copy');
    box.remove();
    return done;
  }

  async function tryCopy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyBySelection(text);
    }
  }

  /** Puts text on the clipboard and says so with the string `key`. */
  async function copyText(text, key) {
    toast(glassbox.t((await tryCopy(text)) ? key : 'copy_failed'));
  }

  Object.assign(glassbox, { frame, toast, copyText, setSheet, showSide, isPhone });
})();

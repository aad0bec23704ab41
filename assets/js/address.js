/**
 * The whole sight in the page's address: which token, head and branch, how attention is looked at, what is compared, what
 * the grid shows, where the map is zoomed to. A link opens the same sight. What stands as at first is left out.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const WRITE_MS = 250; // browsers limit how often an address may change

  /** @type {Map<string, {read: (text: string, again: () => void) => void, write: () => string|null}>} */ const fields = new Map();

  /**
   * Lets a part of the sight stand in the address under a name; `write` gives null for what is as at first. What puts
   * other tokens on the page calls `again` when they are there, so that the selection is read once more.
   */
  const addressField = (name, field) => fields.set(name, field);

  /** The whole number that a text is, or -1. */
  const wholeOf = (text) => (/^\d{1,7}$/.test(text || '') ? Number(text) : -1);

  function readSelection(given) {
    const patch = {};
    for (const [key, field] of [['pos', 'position'], ['layer', 'layer'], ['head', 'head']]) {
      const value = wholeOf(given.get(key));
      if (value >= 0) patch[field] = value;
    }
    if (patch.position >= store.tokens.length) delete patch.position;
    glassbox.select(patch);
  }

  /** Takes over what the address names; a position that does not exist (yet) is left out, and so is what is wrong. */
  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    readSelection(given);
    for (const [name, { read }] of fields) if (given.has(name)) read(given.get(name), () => readSelection(given));
  }

  /** The hash for the sight; while the newest token is followed no position is named. */
  function hash() {
    const { position, layer, head, follow } = store.selection;
    const found = new URLSearchParams(follow ? { layer, head } : { pos: position, layer, head });
    for (const [name, { write }] of fields) {
      const text = write();
      if (text !== null) found.set(name, text);
    }
    return `#${found}`;
  }

  /** The address of this sight, written at once. */
  function address() {
    if (store.model && location.hash !== hash()) history.replaceState(history.state, '', hash());
    return location.href;
  }

  let timer = 0;
  const writeSoon = () => {
    clearTimeout(timer);
    timer = setTimeout(address, WRITE_MS);
  };
  for (const topic of ['selection', 'look', 'sight', 'branches']) glassbox.on(topic, writeSoon);
  window.addEventListener('hashchange', () => location.hash !== hash() && readAddress());

  Object.assign(glassbox, { readAddress, address, addressField, wholeOf });
})();

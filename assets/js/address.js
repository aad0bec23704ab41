/** The selection in the page's address: a link opens the same position and head. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const FIELDS = { pos: 'position', layer: 'layer', head: 'head' };
  const WRITE_MS = 250; // browsers limit how often an address may change

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const patch = {};
    for (const [key, field] of Object.entries(FIELDS)) {
      const value = given.get(key);
      if (value !== null && /^\d{1,7}$/.test(value)) patch[field] = Number(value);
    }
    return patch;
  }

  /** Selects what the address names; a position that does not exist (yet) is left out. */
  function readAddress() {
    const patch = read();
    if (patch.position >= store.tokens.length) delete patch.position;
    glassbox.select(patch);
  }

  /** The hash for the selection; while the newest token is followed no position is named. */
  function hash() {
    const { selection } = store;
    const fields = { layer: selection.layer, head: selection.head };
    return `#${new URLSearchParams(selection.follow ? fields : { pos: selection.position, ...fields })}`;
  }

  /** The address of this sight, written at once. */
  function address() {
    if (store.model && location.hash !== hash()) history.replaceState(history.state, '', hash());
    return location.href;
  }

  let timer = 0;
  glassbox.on('selection', () => {
    clearTimeout(timer);
    timer = setTimeout(address, WRITE_MS);
  });
  window.addEventListener('hashchange', () => location.hash !== hash() && readAddress());

  Object.assign(glassbox, { readAddress, address });
})();

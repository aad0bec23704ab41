/**
 * The system prompt of a conversation that has not begun: one line in the empty chat. The server keeps it for the
 * first message, this tab for a page that is loaded again.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el } = glassbox.dom;

  const KEPT = 'glassbox.system';
  const LINES = 6;

  /** What was set for this session, if it has not begun. */
  function recall() {
    const { sid, text } = JSON.parse(sessionStorage.getItem(KEPT) || '{}');
    return sid === store.sid ? text : '';
  }

  let setting = ''; // what is on its way to the server

  const keep = (text) => sessionStorage.setItem(KEPT, JSON.stringify({ sid: store.sid, text }));

  const grow = (box) => {
    box.style.height = 'auto';
    box.style.height = `${Math.min(box.scrollHeight, LINES * 20) + 2}px`;
  };

  /** Makes what is written the system prompt, unless it is already. */
  async function set(text) {
    if (text === recall() || store.raw || store.streaming || store.tokens.some(glassbox.sampled)) return;
    setting = text;
    await actions.newChat({ seed: store.seed, ...(text && { system: text }) });
    setting = '';
  }

  function onKey(event, box) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Escape') box.value = recall();
    else if (event.key !== 'Enter' || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    document.getElementById('message').focus();
  }

  /** The line, to stand in the empty conversation; nothing for a model or a text without system prompts. */
  function systemLine() {
    const row = el('label', 'system-line');
    row.hidden = !store.model || !store.model.system || store.raw;
    const box = el('textarea');
    box.id = 'system';
    box.rows = 1;
    box.placeholder = glassbox.t('system_placeholder');
    box.value = recall();
    box.addEventListener('input', () => grow(box));
    box.addEventListener('keydown', (event) => onKey(event, box));
    box.addEventListener('blur', () => set(box.value.trim()));
    row.append(el('b', '', glassbox.t('role_system')), box);
    requestAnimationFrame(() => box.value && grow(box));
    return row;
  }

  // a prompt that is being written when the first message goes must not be left behind
  async function settle() {
    const box = document.getElementById('system');
    if (box && box.isConnected) await set(box.value.trim());
  }

  /** Lets the session that the page goes over to have it. */
  const moveSystem = (sid) => sessionStorage.setItem(KEPT, JSON.stringify({ sid, text: recall() }));

  glassbox.on('acted', () => keep(setting)); // any other action begins or leaves the conversation
  Object.assign(glassbox, { systemLine, moveSystem, settleSystem: settle });
})();

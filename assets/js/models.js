/**
 * Another model for this page: what is being loaded, asked after while it is, and going over to it, which loads the page
 * anew with a session of that model.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el } = glassbox.dom;

  const POLL_MS = 300;
  const MOVED = 'glassbox.moved'; // sessionStorage: what to say after the page was loaded anew

  let timer = 0;

  function report(error) {
    glassbox.emit('error', { text: error.message });
  }

  /** Takes over how far a model is, and asks again while that can change. */
  function take(load) {
    const before = store.load;
    store.load = load;
    clearTimeout(timer);
    if (load && ['loading', 'busy'].includes(load.state)) timer = setTimeout(ask, POLL_MS);
    glassbox.emit('load', { before });
  }

  async function ask() {
    try {
      take((await glassbox.rpc('load_state', {})).load);
    } catch {
      timer = setTimeout(ask, 4 * POLL_MS); // a lost connection is told elsewhere
    }
  }

  /** Loads a model; throws an Error that says why not. */
  const begin = async (wish) => take((await glassbox.rpc('load_model', wish)).load);

  /** Ends loading, or forgets what is ready or has failed. */
  async function cancel() {
    try {
      take((await glassbox.rpc('cancel_load', {})).load);
    } catch (error) {
      report(error);
    }
  }

  /** Whether something stands on the page that would be missed. */
  const hasConversation = () => !store.example && store.tokens.length > 0;

  /** Goes over to the model that is ready. Throws an Error that says why not; then nothing has changed. */
  async function use(carry) {
    const { sid, name, cut } = await glassbox.rpc('use_model', { carry });
    sessionStorage.setItem(MOVED, JSON.stringify({ name, cut }));
    glassbox.moveSystem(sid);
    glassbox.moveTo(sid);
  }

  // ---- what is said of it while the picker is closed ----

  function switchButton() {
    const button = el('button', 'btn', glassbox.t('picker_ready_action'));
    button.type = 'button';
    button.addEventListener('click', () => glassbox.openPicker());
    return button;
  }

  function tell({ before }) {
    const { load } = store;
    const news = load && (!before || before.state !== load.state) && !glassbox.layers.opened('picker');
    if (!news) return;
    if (load.state === 'ready') {
      glassbox.emit('notice', { text: glassbox.t('picker_ready', glassbox.shortName(load.name)), action: switchButton() });
    }
    if (load.state !== 'failed') return;
    glassbox.emit('error', { text: load.error });
    cancel(); // it has been told
  }

  /** After the page was loaded anew: which model it runs now, and what did not fit into its context. */
  function greet() {
    const moved = JSON.parse(sessionStorage.getItem(MOVED) || 'null');
    sessionStorage.removeItem(MOVED);
    const { load } = store;
    store.load = null; // so that it counts as news
    take(load);
    if (!moved) return;
    glassbox.toast(glassbox.t('picker_switched', moved.name));
    if (moved.cut) glassbox.emit('notice', { text: glassbox.cutNotice(moved.cut) });
    const button = document.getElementById('model');
    if (button && !glassbox.isPhone()) button.focus({ preventScroll: true });
  }

  glassbox.on('hello', greet);
  glassbox.on('load', tell);
  glassbox.models = { take, begin, cancel, use, hasConversation };
})();

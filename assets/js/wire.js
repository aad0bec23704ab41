/**
 * The page's line to the server: calls of server functions, the messages pushed into the chat widget's value,
 * the greeting at load (a reloaded page takes its conversation over), gaps pulled, a lost connection noticed.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const KEPT = 'glassbox.sid'; // sessionStorage: this tab's session
  // set when the page goes; a duplicated tab has no such mark and starts its own
  const LEFT = 'glassbox.left';
  const SILENCE_MS = 8000; // a streaming reply that says nothing for so long is asked after

  const PING_MS = 15000; // how soon an idle page notices that nobody is there

  let api = null;
  let repairing = false;
  let held = [];
  let heard = 0;
  let lost = false;

  // ---- calls ----

  /** True when the page's own address does not answer any more. */
  async function unreachable() {
    try {
      await fetch(location.pathname, { method: 'HEAD', cache: 'no-store' });
      return false;
    } catch {
      return true;
    }
  }

  function lose(key) {
    if (lost) return;
    lost = true;
    store.streaming = false;
    glassbox.emit('lost', glassbox.t(key));
    glassbox.emit('state');
  }

  /** Gradio answers undefined, or rejects, when the server function raised and when nobody is there. */
  async function failure(name) {
    if (await unreachable()) {
      lose('lost');
      return new Error(glassbox.t('lost'));
    }
    return new Error(glassbox.t('failed', name));
  }

  /**
   * Calls a server function with this page's session. Throws an Error whose message can be shown; `code` and
   * `field` are the server's, when it gave them.
   */
  async function rpc(name, args) {
    let reply;
    try {
      reply = await api.server[name]({ sid: store.sid, ...args });
    } catch {
      reply = undefined;
    }
    if (reply == null) throw await failure(name);
    if (!reply.error) return reply;
    if (reply.code === 'gone') lose('gone');
    if (reply.code === 'busy') reply.error = glassbox.t('busy');
    throw Object.assign(new Error(reply.error), { code: reply.code, field: reply.field });
  }

  // ---- messages ----

  /** Takes a message in; when tokens before it are missing, it waits until they were pulled. */
  function receive(message) {
    heard = Date.now();
    if (message.error && message.run >= store.run) glassbox.emit('error', { text: message.error });
    if (message.code === 'gone') return lose('gone');
    if (repairing) return held.push(message);
    return glassbox.apply(message) || repair(message);
  }

  async function repair(message) {
    repairing = true;
    held = message ? [message] : [];
    try {
      glassbox.apply(await rpc('tokens', { from: store.tokens.length }));
    } catch (error) {
      glassbox.emit('error', { text: error.message });
    }
    repairing = false;
    for (const waiting of held.splice(0)) glassbox.apply(waiting);
  }

  function pump() {
    const text = api.props.value;
    if (typeof text !== 'string' || !text) return;
    heard = Date.now();
    glassbox.pace.push(JSON.parse(text));
  }

  function watchSilence() {
    if (!store.streaming || lost || repairing || Date.now() - heard < SILENCE_MS) return;
    heard = Date.now();
    repair(null);
  }

  async function ping() {
    if (!document.hidden && store.sid && !lost && (await unreachable())) lose('lost');
  }

  // ---- greeting ----

  function greetingArgs() {
    const sid = sessionStorage.getItem(KEPT);
    const back = sid && sessionStorage.getItem(LEFT) === sid;
    sessionStorage.removeItem(LEFT);
    return back ? { sid, adopt: true } : {};
  }

  /** Takes a server's view of the session: parameters, seed, branches. */
  function adopt(reply) {
    if (reply.seed != null) store.seed = reply.seed;
    if (reply.branches) store.branches = reply.branches;
    if (reply.branch != null) store.branch = store.selection.branch = reply.branch;
    if (reply.branches || reply.branch != null) glassbox.emit('branches');
    if (reply.params) store.params = reply.params;
    if (reply.params || reply.seed != null) glassbox.emit('params');
    if (reply.raw != null && reply.raw !== store.raw) {
      store.raw = reply.raw;
      glassbox.emit('mode');
    }
  }

  /**
   * A first head worth looking at: what the address says, else the server's choice, else one from the middle.
   */
  function firstSelection(reply) {
    const { selection, model } = store;
    selection.layer = Math.floor(model.n_layer / 2);
    selection.head = Math.floor((model.n_head * 2) / 3);
    if (reply.selection) Object.assign(selection, reply.selection);
    if (reply.selection && 'position' in reply.selection) selection.follow = false;
    glassbox.readAddress();
  }

  async function hello() {
    const reply = await rpc('hello', greetingArgs());
    const { sid, model, defaults = {}, limits = {}, example = false, load = null } = reply;
    const { presets = {}, neutral = {}, filters = {}, order = [] } = reply;
    Object.assign(store, { sid, model, defaults, limits, example, load, presets, neutral, filters, order });
    sessionStorage.setItem(KEPT, sid);
    adopt(reply);
    glassbox.emit('hello');
    if (reply.message) glassbox.apply(reply.message);
    firstSelection(reply);
    glassbox.emit('selection', { position: true, head: true, follow: false });
  }

  /** Loads the page anew with another session, so that nothing of this one is left on it. */
  function moveTo(sid) {
    store.sid = sid;
    sessionStorage.setItem(KEPT, sid);
    history.replaceState(history.state, '', location.pathname + location.search);
    location.reload();
  }

  // ---- start ----

  /**
   * Called by the chat widget at each mount: its `server`, `watch` and `trigger` are the page's only line.
   */
  function connect(widgetApi) {
    const first = api === null;
    api = widgetApi;
    glassbox.pace.start(receive);
    api.watch('value', pump);
    if (!first) return pump();
    setInterval(watchSilence, 1000);
    window.addEventListener('pagehide', () => store.sid && sessionStorage.setItem(LEFT, store.sid));
    window.addEventListener('pageshow', (event) => event.persisted && location.reload());
    setInterval(ping, PING_MS);
    document.addEventListener('visibilitychange', ping);
    return hello().catch((error) => glassbox.emit('error', { text: error.message, keep: true }));
  }

  /** Starts the queued event whose generator streams into the chat widget. */
  const run = (args) => api.trigger('run', { sid: store.sid, ...args });

  Object.assign(glassbox, { rpc, receive, connect, adopt, run, moveTo });
})();

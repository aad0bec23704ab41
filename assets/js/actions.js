/**
 * What a person can do, one function each. Every action that changes the text ends what is streaming (the
 * server raises the run id at once) and then starts the run it was given. A failure is shown and loses
 * nothing.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  function report(error) {
    glassbox.emit('error', { text: error.message, field: error.field });
  }

  /** What had to be left out, in the page's language: [messages, tokens]. */
  function cutNotice([messages, tokens]) {
    const { t } = glassbox;
    const parts = [];
    if (messages) parts.push(messages === 1 ? t('cut_message') : t('cut_messages', messages));
    if (tokens) parts.push(t('cut_tokens', tokens));
    return t('cut', parts.join(t('and')));
  }

  /** Takes over what an action answered: the prompt's tokens at once, what was cut, then the stream. */
  function begin(reply, count) {
    glassbox.pace.drain();
    glassbox.adopt(reply);
    glassbox.setSamples(reply.samples || null);
    if (reply.message) glassbox.receive(reply.message);
    if (reply.cut) glassbox.emit('notice', { text: cutNotice(reply.cut) });
    else if (reply.notice) glassbox.emit('notice', { text: reply.notice });
    if (reply.run == null) return;
    store.run = reply.run;
    store.streaming = true;
    store.finish = null;
    glassbox.emit('state');
    glassbox.run({ run: reply.run, ...(count && { count }) });
  }

  /**
   * Calls the server function `name` and streams what follows. The newest token is followed from then on.
   * @returns {Promise<boolean>} whether it worked
   */
  async function act(name, args, count) {
    try {
      const reply = await glassbox.rpc(name, args);
      store.selection.follow = true;
      store.example = false;
      glassbox.hoverAt(null);
      glassbox.emit('acted');
      begin(reply, count);
      return true;
    } catch (error) {
      report(error);
      return false;
    }
  }

  /** A seed short enough to be written down. */
  const freshSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;

  const canResume = () =>
    !store.streaming &&
    !store.samples &&
    store.tokens.length > 0 &&
    ['stopped', 'length'].includes(store.finish);

  /** One that was carried over from another model counts: it can be written anew. */
  const hasReply = () => store.tokens.some((token) => glassbox.sampled(token) || token.role === 'assistant');

  /** Sends a message; resolves to whether it was taken, so that the composer may keep the text if not. */
  async function send(text) {
    await glassbox.settleSystem();
    return act('send', { text });
  }

  async function stop() {
    if (!store.streaming) return;
    try {
      await glassbox.rpc('stop', {});
    } catch (error) {
      report(error);
    }
  }

  /** The last reply again: with the same seed the same text, with `newSeed` another. */
  const regenerate = ({ newSeed = false } = {}) =>
    hasReply() ? act('regenerate', newSeed ? { seed: freshSeed() } : {}) : Promise.resolve(false);

  /** Replaces a message of the person's and answers anew; the old branch stays. */
  const edit = (message, text) => act('edit', { message, text });

  /**
   * Goes on from a position with something else: a token's id, {token}, {tokens} or {text}; without any, with what the
   * settings in force draw there. The old branch stays. `count` tokens, or as many as allowed.
   */
  const fork = (position, what, count) =>
    act('fork', { position, ...(typeof what === 'number' ? { token: what } : what) }, count);

  /** Goes on with a reply that was stopped or ran into its limit; `count` tokens, or as many as allowed. */
  const resume = (count) =>
    store.streaming || !store.tokens.length
      ? Promise.resolve(false)
      : act('resume', count ? { count } : {}, count);

  /** Calls what puts another conversation in place of this one. */
  function renew(name, args) {
    glassbox.emit('renew');
    return act(name, args);
  }

  /** An empty conversation; `system` will be its system prompt, `seed` its seed. */
  const newChat = (args = {}) => renew('new_chat', args);

  /** Goes on with a conversation from a file; the one that is open goes. */
  const open = (record) => renew('open', { record });

  /** Takes what is typed as the start of a text (`raw`), or as a message. */
  async function setMode(raw) {
    try {
      glassbox.adopt(await glassbox.rpc('set_mode', { raw }));
      return true;
    } catch (error) {
      report(error);
      return false;
    }
  }

  // ---- branches ----

  const switchBranch = (branch) => act('switch_branch', { branch });

  /** Calls what changes the list of branches without touching the conversation that is shown. */
  async function changeBranches(name, args) {
    try {
      const reply = await glassbox.rpc(name, args);
      if (reply.message) begin(reply);
      else glassbox.adopt(reply);
      return true;
    } catch (error) {
      report(error);
      return false;
    }
  }

  const renameBranch = (branch, name) => changeBranches('rename_branch', { branch, name });

  const deleteBranch = (branch) => changeBranches('delete_branch', { branch });

  // ---- several at once ----

  /** Several replies to one prompt: `n` of them to `text`, or to the last message; see samples.js. */
  async function askSamples(args) {
    await glassbox.settleSystem();
    return act('samples', args);
  }

  /** Goes on with one of them; the others stay as branches. */
  const pickSample = (k) => act('pick_sample', { k });

  /** Forgets them all; what stood there before is shown again. */
  const dropSamples = () => act('drop_samples', {});

  async function setSeed(seed) {
    try {
      glassbox.adopt({ seed, ...(await glassbox.rpc('set_seed', { seed })) });
    } catch (error) {
      report(error);
      glassbox.emit('params');
    }
  }

  // ---- parameters: shown at once, one call in flight, the last value always sent ----

  /** @type {object[]} */ let waiting = []; // patches, each taken by the server whole or not at all
  let calling = false;
  let confirmed = null;

  const keysOf = (patch) => Object.keys(patch).sort().join();

  /** What is not sent yet shows over what the server has confirmed. */
  function showParams() {
    store.params = Object.assign({}, confirmed, ...waiting);
    glassbox.emit('params');
  }

  async function sendParams() {
    const patch = waiting.shift();
    calling = true;
    try {
      confirmed = (await glassbox.rpc('set_params', patch)).params;
    } catch (error) {
      report(error);
      showParams();
    }
    calling = false;
    return waiting.length ? sendParams() : showParams();
  }

  /** Changes sampling parameters from the next token on; of a control that moves fast the last value is sent. */
  function setParams(patch) {
    if (!calling && !waiting.length) confirmed = { ...store.params };
    store.params = { ...store.params, ...patch };
    waiting = [...waiting.filter((other) => keysOf(other) !== keysOf(patch)), patch];
    glassbox.emit('params');
    return calling ? Promise.resolve() : sendParams();
  }

  glassbox.cutNotice = cutNotice;
  glassbox.actions = {
    send,
    stop,
    regenerate,
    edit,
    fork,
    resume,
    newChat,
    open,
    switchBranch,
    renameBranch,
    deleteBranch,
    askSamples,
    pickSample,
    dropSamples,
    freshSeed,
    setMode,
    setParams,
    setSeed,
    canResume,
    hasReply,
  };
})();

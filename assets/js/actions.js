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

  const freshSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;

  const canResume = () =>
    !store.streaming && store.tokens.length > 0 && ['stopped', 'length'].includes(store.finish);

  const hasReply = () => store.tokens.some(glassbox.sampled);

  /** Sends a message; resolves to whether it was taken, so that the composer may keep the text if not. */
  const send = (text) => act('send', { text });

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

  /** Puts another token at a position and goes on from there; the old branch stays. */
  const fork = (position, token) => act('fork', { position, token });

  /** Goes on with a reply that was stopped or ran into its limit; `count` tokens, or as many as allowed. */
  const resume = (count) =>
    store.streaming || !store.tokens.length
      ? Promise.resolve(false)
      : act('resume', count ? { count } : {}, count);

  const newChat = (system) => act('new_chat', system == null ? {} : { system });

  const switchBranch = (branch) => act('switch_branch', { branch });

  async function setSeed(seed) {
    try {
      glassbox.adopt({ seed, ...(await glassbox.rpc('set_seed', { seed })) });
    } catch (error) {
      report(error);
      glassbox.emit('params');
    }
  }

  // ---- parameters: shown at once, one call in flight, the last value always sent ----

  let waiting = null;
  let calling = false;
  let confirmed = null;

  async function sendParams() {
    const patch = waiting;
    waiting = null;
    calling = true;
    try {
      confirmed = (await glassbox.rpc('set_params', patch)).params;
    } catch (error) {
      report(error);
    }
    calling = false;
    if (waiting) return sendParams();
    if (confirmed) store.params = confirmed;
    return glassbox.emit('params');
  }

  /** Changes sampling parameters from the next token on. */
  function setParams(patch) {
    if (!calling && !waiting) confirmed = { ...store.params };
    store.params = { ...store.params, ...patch };
    waiting = { ...waiting, ...patch };
    glassbox.emit('params');
    return calling ? Promise.resolve() : sendParams();
  }

  glassbox.actions = {
    send,
    stop,
    regenerate,
    edit,
    fork,
    resume,
    newChat,
    switchBranch,
    setParams,
    setSeed,
    canResume,
    hasReply,
  };
})();

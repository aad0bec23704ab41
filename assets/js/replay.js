/** Walks the selection through a reply that is there already; tokens that are not reached yet are dimmed. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;

  const STEP_MS = 90;
  const WHOLE_MS = 20000; // a long reply takes no more than this

  let timer = 0;

  /** First and last position of the reply to replay: the one the selection is in, else the last. */
  function replyAround() {
    const { tokens, selection } = store;
    let end = tokens.length - 1;
    if (!selection.follow && sampled(tokens[selection.position])) {
      end = selection.position;
      while (sampled(tokens[end + 1])) end++;
    }
    while (end >= 0 && !sampled(tokens[end])) end--;
    let start = end;
    while (start > 0 && sampled(tokens[start - 1])) start--;
    return { start, end };
  }

  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    glassbox.emit('replay', null);
  }

  /** Shows the tokens before `at` and selects the last of them. */
  function show(at) {
    glassbox.select({ position: at });
    glassbox.revealToken(at);
    glassbox.emit('replay', at + 1);
  }

  /** Starts at the reply's first token; in the end the selection stands where it stood. */
  function start() {
    const { start: first, end } = replyAround();
    if (end < 0 || store.streaming) return;
    const { follow, position } = store.selection;
    const stride = Math.max(1, Math.ceil(((end - first + 1) * STEP_MS) / WHOLE_MS));
    let at = first;
    timer = setInterval(() => {
      at += stride;
      if (at <= end) return show(at);
      stop();
      return glassbox.select(follow ? { follow } : { position });
    }, STEP_MS);
    show(at);
  }

  glassbox.on('tokens', stop);
  glassbox.replay = { stop, turn: () => (timer ? stop() : start()), isOn: () => timer !== 0 };
})();

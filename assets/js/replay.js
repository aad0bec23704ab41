/**
 * Walks the selection through a reply that is there already, at the pace at which it was written or a multiple of
 * it; tokens that are not reached yet are dimmed.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;

  const SPEEDS = [0.5, 1, 2, 4];
  const UNKNOWN = 0.09; // seconds for a token of which no time is known
  const LONGEST = 1.5; // a pause made by hand, or the reading of a prompt, is not waited for
  const FRAME_MS = 16;
  const REST_MS = 400;

  let timer = 0;
  let speed = 1;
  /** @type {{at: number, end: number, due: number, back: object}|null} */ let run = null;

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

  /** Milliseconds before the token at `position` appears; after the last one the replay rests a little. */
  function pause(position) {
    if (position > run.end) return REST_MS;
    const { dt } = store.tokens[position];
    return (Math.min(LONGEST, dt ?? UNKNOWN) * 1000) / speed;
  }

  function stop() {
    if (!run) return;
    clearTimeout(timer);
    run = null;
    glassbox.emit('replay', null);
  }

  /** Shows the tokens up to `at` and selects the last of them. */
  function show(at) {
    glassbox.select({ position: at });
    glassbox.revealToken(at);
    glassbox.emit('replay', at + 1);
  }

  function wait() {
    timer = setTimeout(step, Math.max(FRAME_MS, run.due - performance.now()));
  }

  /** Goes on to the last token that is due; a page that is slow leaves some out and keeps the time. */
  function step() {
    const now = performance.now();
    while (run.at <= run.end && run.due <= now) run.due += pause(++run.at + 1);
    if (run.at > run.end) return finish();
    show(run.at);
    return wait();
  }

  /** In the end the selection stands where it stood. */
  function finish() {
    const { back } = run;
    stop();
    glassbox.select(back);
  }

  function start() {
    const { start: first, end } = replyAround();
    if (end < 0 || store.streaming) return;
    const { follow, position } = store.selection;
    run = { at: first, end, due: performance.now(), back: follow ? { follow } : { position } };
    run.due += pause(first + 1);
    show(first);
    wait();
  }

  /** Changes the pace from the next token on. */
  function setSpeed(next) {
    speed = next;
    if (!run) return;
    clearTimeout(timer);
    run.due = performance.now() + pause(run.at + 1);
    wait();
  }

  glassbox.on('tokens', stop);
  glassbox.replay = {
    SPEEDS,
    stop,
    setSpeed,
    turn: () => (run ? stop() : start()),
    isOn: () => run !== null,
  };
})();

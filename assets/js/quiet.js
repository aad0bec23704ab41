/**
 * Stops a clock that Gradio leaves running. Its sign "Loading" counts seconds, is taken away while it counts, and
 * then redraws the page 60 times a second for ever (gradio 6.31, StatusTracker): a third of a core on a machine
 * without a GPU. The clock reads performance.now() in each of its frames and asks for the next one only afterwards,
 * so one failed reading ends it. Only readings by that script in a frame of its own fail, and in the first seconds.
 */
(() => {
  'use strict';
  const SECONDS = 10;
  const stopped = new Error('glassbox: Gradio’s clock is stopped');
  const { performance } = window;

  const restore = () => delete performance.now; // the prototype's own comes back

  /** Whether a frame of the clock is reading: then nothing else stands on the stack. */
  function isClock() {
    const callers = new Error().stack.split('\n').filter((line) => line.includes(':'));
    return callers.length <= 4 && callers.at(-1).includes('/statustracker');
  }

  performance.now = () => {
    if (isClock()) throw stopped;
    return Performance.prototype.now.call(performance);
  };
  window.addEventListener('error', (event) => event.error === stopped && event.preventDefault());
  setTimeout(restore, SECONDS * 1000);
})();

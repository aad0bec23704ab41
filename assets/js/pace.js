/**
 * How often the page takes in what the server pushes. Drawing competes with the model for the processor, so what
 * arrives waits until as much time as the last drawing took, times REST, has passed: on a fast machine that is
 * every message, on a slow one a few at a time, and the model keeps most of the cores.
 */
(() => {
  'use strict';
  const { glassbox } = window;

  const REST = 6;
  const LONGEST_MS = 250;

  const waiting = [];
  const painted = new MessageChannel();
  let take = () => {};
  let timer = 0;
  let cost = 0;
  let due = 0;
  let began = 0;

  /** Takes in all that waits, in order. */
  function drain() {
    clearTimeout(timer);
    timer = 0;
    const start = performance.now();
    for (const message of waiting.splice(0)) take(message);
    cost = performance.now() - start;
  }

  /** The draws that a message asks for run in the next frame; what they cost is known once it is painted. */
  function drainAndMeasure() {
    requestAnimationFrame(() => {
      began = performance.now();
      painted.port1.postMessage(null);
    });
    drain();
  }

  painted.port2.onmessage = () => {
    const now = performance.now();
    due = now + Math.min(LONGEST_MS, REST * (cost + now - began));
  };

  /** Takes a pushed message in, at its time; the last one of a reply at once. */
  function push(message) {
    waiting.push(message);
    if (message.state !== 'streaming' || document.hidden) drain();
    else timer ||= setTimeout(drainAndMeasure, Math.max(0, due - performance.now()));
  }

  /** Says what takes a message in. */
  const start = (receiver) => {
    take = receiver;
  };

  glassbox.pace = { push, drain, start };
})();

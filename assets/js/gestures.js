/**
 * Pointer and keys on the heatmap: hover, click to select a row, wheel or pinch to zoom, drag to pan, double
 * click to see all again. Says what happened through the callbacks; draws nothing.
 */
(() => {
  'use strict';
  const { glassbox } = window;

  const DRAG = 4;
  const WHEEL = 0.0022;

  const spread = ([a, b]) => Math.hypot(a.x - b.x, a.y - b.y);
  const middle = ([a, b]) => [(a.x + b.x) / 2, (a.y + b.y) / 2];

  /** Wheel steps differ by device: lines and pages count as so many pixels; a pinch on a touch pad comes as ctrl. */
  const wheelPixels = (event) => event.deltaY * [1, 16, 400][event.deltaMode || 0] * (event.ctrlKey ? 5 : 1);

  class Pointer {
    constructor(map, on) {
      this.map = map;
      this.on = on;
      /** Where each finger or the mouse button is held, by pointer id. */
      this.held = new Map();
      this.start = null;
    }

    down(event) {
      if (event.button > 0) return;
      const { clientX: x, clientY: y } = event;
      this.held.set(event.pointerId, { x, y });
      this.map.canvas.setPointerCapture(event.pointerId);
      this.start = { x, y, lastX: x, lastY: y, moved: this.held.size > 1 };
    }

    move(event) {
      const before = [...this.held.values()];
      const at = { x: event.clientX, y: event.clientY };
      if (this.held.has(event.pointerId)) this.held.set(event.pointerId, at);
      if (this.held.size === 2) this.pinch(before);
      else if (this.start && this.drag(at)) this.on.hover(null);
      else this.on.hover(this.map.cellAt(at.x, at.y));
    }

    pinch(before) {
      const { map } = this;
      const points = [...this.held.values()];
      const [x, y] = middle(points);
      const [oldX, oldY] = middle(before);
      map.pan(x - oldX, y - oldY);
      map.zoom(spread(points) / Math.max(1, spread(before)), ...map.shareAt(x, y));
      this.on.view();
    }

    /** Pans a zoomed view once the pointer has left its place; says whether it did. */
    drag({ x, y }) {
      const { start, map } = this;
      start.moved = start.moved || Math.hypot(x - start.x, y - start.y) > DRAG;
      if (!start.moved || !map.zoomed) return false;
      map.pan(x - start.lastX, y - start.lastY);
      [start.lastX, start.lastY] = [x, y];
      this.on.view();
      return true;
    }

    up(event) {
      const clicked = event.type === 'pointerup' && this.start && !this.start.moved;
      this.held.delete(event.pointerId);
      if (this.held.size === 0) this.start = null;
      else if (this.start) this.start.moved = true;
      const cell = clicked && this.map.cellAt(event.clientX, event.clientY);
      if (cell) this.on.pick(cell.query);
      if (event.pointerType !== 'mouse') this.on.hover(null);
    }

    leave() {
      if (this.held.size === 0) this.on.hover(null);
    }

    wheel(event) {
      event.preventDefault();
      const factor = Math.exp(-wheelPixels(event) * WHEEL);
      this.map.zoom(Math.max(0.5, Math.min(2, factor)), ...this.map.shareAt(event.clientX, event.clientY));
      this.on.view();
    }
  }

  /**
   * @param {object} map the Heatmap
   * @param {{hover: Function, pick: Function, view: Function}} on hover(cell or null), pick(query), and view()
   *   after a zoom or pan
   */
  function attachPointer(map, on) {
    const pointer = new Pointer(map, on);
    const { canvas } = map;
    canvas.addEventListener('pointerdown', (event) => pointer.down(event));
    canvas.addEventListener('pointermove', (event) => pointer.move(event));
    canvas.addEventListener('pointerup', (event) => pointer.up(event));
    canvas.addEventListener('pointercancel', (event) => pointer.up(event));
    canvas.addEventListener('pointerleave', () => pointer.leave());
    canvas.addEventListener('wheel', (event) => pointer.wheel(event), { passive: false });
    canvas.addEventListener('dblclick', () => {
      map.reset();
      on.view();
    });
  }

  /** Keys while the heatmap has the focus: up, down rows; left, right keys; + - 0 zoom. */
  function attachKeys(map, on) {
    const zooms = { '+': 1.4, '=': 1.4, '-': 1 / 1.4, 0: 0 };
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    map.canvas.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) on.step(...steps[event.key]);
      else if (event.key in zooms && zooms[event.key]) map.zoom(zooms[event.key], 0.5, 0.5);
      else if (event.key === '0') map.reset();
      else return;
      event.preventDefault();
      event.stopPropagation();
      on.view();
    });
  }

  glassbox.gestures = { attachPointer, attachKeys };
})();

/**
 * A colour bar that says what a colour means, and a threshold on it: what lies left of the handle is not painted.
 * Dragged, or moved by the arrow keys while it has the focus; a double click takes the threshold away.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el, setText } = glassbox.dom;

  const STEP = 0.02;
  const KEYS = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageUp: 5 * STEP, PageDown: -5 * STEP };

  class Shade {
    /**
     * @param {string} id
     * @param {string} tip key of the string that says what the bar and its handle do
     * @param {(share: number) => void} changed called with the share of the bar that is left out, 0 to 1
     */
    constructor(id, tip, changed) {
      this.changed = changed;
      this.least = 0;
      this.mirrored = false;
      this.node = el('span', 'ramp shade');
      [this.low, this.high] = [el('span'), el('span')];
      this.bar = el('span', 'bar');
      Object.assign(this.bar, { id, tabIndex: 0 });
      this.bar.setAttribute('role', 'slider');
      this.bar.dataset.tip = tip;
      this.fill = el('i');
      this.off = el('u');
      this.handle = el('b');
      this.bar.append(this.fill, this.off, this.handle);
      this.unit = el('span', 'gu');
      this.node.append(this.low, this.bar, this.high, this.unit);
      this.listen();
    }

    listen() {
      const { bar } = this;
      const at = (event) => {
        const { left, width } = bar.getBoundingClientRect();
        const share = Math.max(0, Math.min(1, (event.clientX - left) / width));
        const own = this.mirrored ? Math.abs(2 * share - 1) : share;
        this.set(own < 0.04 ? 0 : own);
      };
      bar.addEventListener('pointerdown', (event) => {
        if (event.button > 0) return;
        bar.setPointerCapture(event.pointerId);
        at(event);
      });
      bar.addEventListener('pointermove', (event) => bar.hasPointerCapture(event.pointerId) && at(event));
      bar.addEventListener('dblclick', () => this.set(0));
      bar.addEventListener('keydown', (event) => {
        const ends = { Home: 0, End: 1 };
        if (!(event.key in KEYS) && !(event.key in ends)) return;
        event.preventDefault();
        event.stopPropagation();
        this.set(event.key in ends ? ends[event.key] : this.least + KEYS[event.key]);
      });
    }

    set(share) {
      this.place(Math.max(0, Math.min(1, share)));
      this.changed(this.least);
    }

    /** Shows a threshold without saying that it changed. */
    place(share) {
      this.least = share;
      const place = this.mirrored ? 0.5 + share / 2 : share;
      this.handle.style.left = `${100 * place}%`;
      this.off.style.width = `${100 * share}%`;
      this.off.style.left = this.mirrored ? `${50 * (1 - share)}%` : '0';
      this.node.classList.toggle('cut', share > 0);
    }

    /**
     * @param {{gradient: string, low: string, high: string, unit?: string, at: string, mirrored?: boolean}} what the
     *   colours, the texts at both ends, the value at the handle
     */
    show({ gradient, low, high, unit = '', at, mirrored = false }) {
      if (this.mirrored !== mirrored) {
        this.mirrored = mirrored;
        this.place(this.least);
      }
      if (this.shown !== gradient) this.fill.style.background = this.shown = gradient;
      setText(this.low, this.least && !mirrored ? `≥ ${at}` : low);
      setText(this.high, this.least && mirrored ? `± ${at}` : high);
      setText(this.unit, unit);
      this.bar.setAttribute('aria-valuenow', Math.round(100 * this.least));
      this.bar.setAttribute('aria-valuetext', at);
    }
  }

  glassbox.Shade = Shade;
})();

/** The numbers of the head grid, pulled again while text streams, never while a pull is under way. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const METRICS = [
    'first', 'previous', 'self', 'duplicate', 'induction', 'user', 'entropy', 'distance', 'pattern', 'like',
  ];
  const EVERY_MS = 2000;
  const FIRST_MS = 500; // while there is nothing to show
  const RETRY_MS = 3000;
  const SLOW = ['like']; // compares every head with one: not while text streams

  // what came while the page was hidden was not pulled
  document.addEventListener('visibilitychange', () => document.hidden || glassbox.emit('visible'));

  /** @typedef {{metric: string, values?: Array<number|null>, min: number, max: number, side?: number, size?: number,
   *   cells?: Uint8Array, n: number}} Grid */

  /** The head that the others are compared with is like itself; the colours are for the others. */
  function leaveOut(grid) {
    const own = grid.layer * store.model.n_head + grid.head;
    grid.max = Math.max(grid.min, ...grid.values.filter((value, i) => value !== null && i !== own));
  }

  class GridFeed {
    /** @param {() => void} changed called when `grid` or `error` did */
    constructor(changed) {
      Object.assign(this, { changed, metric: METRICS[0], like: null, grid: null, error: null, closed: false });
      Object.assign(this, { pulling: false, again: false, lost: false, timer: 0, last: 0 });
      glassbox.on('lost', () => {
        this.lost = true;
      });
      glassbox.on('visible', () => this.refresh());
    }

    get args() {
      return { metric: this.metric, ...(this.metric === 'like' ? this.like : {}) };
    }

    /** Looks at another metric; `like` needs the head that the others are compared with. */
    choose(metric, like = null) {
      Object.assign(this, { metric, like });
      this.refresh(true);
    }

    async pull() {
      this.timer = 0;
      if (this.pulling || document.hidden || this.closed || !store.sid) return;
      this.pulling = true;
      this.again = false;
      this.last = Date.now();
      const asked = JSON.stringify(this.args);
      try {
        const grid = await glassbox.rpc('grid', this.args);
        if (grid.data) grid.cells = glassbox.b64(grid.data);
        if (grid.metric === 'like') leaveOut(grid);
        if (asked === JSON.stringify(this.args)) Object.assign(this, { grid: grid.n ? grid : null, error: null });
      } catch (error) {
        this.error = error.message;
        this.last = Date.now() + RETRY_MS;
      }
      this.pulling = false;
      this.changed();
      if (this.again || asked !== JSON.stringify(this.args) || this.error) this.refresh();
    }

    /** May be called at every token. */
    refresh(now = false) {
      if (this.lost || this.closed) return;
      if (!now && store.streaming && SLOW.includes(this.metric)) return;
      this.again = true;
      if (this.timer && now) this.timer = clearTimeout(this.timer) || 0;
      if (this.pulling || this.timer) return;
      const wait = this.last + (this.grid ? EVERY_MS : FIRST_MS) - Date.now();
      this.timer = setTimeout(() => this.pull(), now ? 0 : Math.max(0, wait));
    }

    /** Nothing is pulled while the panel cannot be seen. */
    close(closed) {
      if (this.closed === closed) return;
      this.closed = closed;
      if (!closed) this.refresh(true);
    }
  }

  Object.assign(glassbox, { GridFeed, gridMetrics: METRICS });
})();

/**
 * The order in which the filters act: a list whose rows are moved by dragging, by buttons, or by the arrow keys on a
 * row's handle. Those that act now are marked. What moved where is read aloud.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, field, parameters } = glassbox;
  const { el } = dom;

  const KEYS = { ArrowUp: -1, ArrowDown: 1 };

  /** The row above which a row dragged to `y` belongs, or null at the end. */
  function rowBelow(list, dragged, y) {
    const others = [...list.children].filter((row) => row !== dragged);
    return others.find((row) => {
      const { top, height } = row.getBoundingClientRect();
      return y < top + height / 2;
    }) || null;
  }

  class Order {
    constructor() {
      this.frame = new field.Field('order', { heading: true });
      this.box = this.frame.box;
      this.list = el('ol', 'order');
      this.list.id = 'order-list';
      this.told = el('p', 'visually-hidden');
      this.told.setAttribute('role', 'status');
      this.made = el('p', 'made');
      this.rows = new Map();
      this.frame.fill(this.list, this.made, this.told);
      this.frame.reset.addEventListener('click', () => {
        this.list.querySelector('.grip').focus();
        this.set(store.order);
      });
      this.dragging = null;
      this.listen();
    }

    get value() {
      return store.params.order || [];
    }

    set(order) {
      this.complain('');
      glassbox.actions.setParams({ order: [...order] });
    }

    complain(text) {
      this.frame.complain(text);
    }

    // ---- rows ----

    button(name, icon, step) {
      const button = dom.iconButton(icon, step < 0 ? 'samp_up' : 'samp_down', () => this.move(name, step));
      button.classList.add('mv');
      return button;
    }

    makeRow(name) {
      const row = el('li');
      row.dataset.filter = name;
      const grip = dom.iconButton('grip', 'samp_move', () => {});
      grip.classList.add('grip');
      grip.addEventListener('keydown', (event) => {
        if (!(event.key in KEYS)) return;
        event.preventDefault();
        event.stopPropagation();
        this.move(name, KEYS[event.key]);
      });
      const text = el('span', 'nm');
      const up = this.button(name, 'up', -1);
      const down = this.button(name, 'down', 1);
      row.append(grip, text, el('span', 'dot'), up, down);
      row.addEventListener('pointerdown', (event) => this.take(event, row));
      this.rows.set(name, { row, grip, text, up, down });
      return row;
    }

    /** One place up or down; the control that was used keeps the focus. */
    move(name, step) {
      const order = this.value.filter((other) => other !== name);
      const from = this.value.indexOf(name);
      const to = Math.max(0, Math.min(order.length, from + step));
      if (to === from) return;
      order.splice(to, 0, name);
      this.commit(order, name);
    }

    commit(order, name) {
      const focused = document.activeElement;
      this.set(order);
      this.place();
      if (this.list.contains(focused)) focused.focus();
      const { t } = glassbox;
      this.told.textContent = t('samp_moved', glassbox.filterName(name), order.indexOf(name) + 1, order.length);
    }

    // ---- dragging ----

    /** The list holds the pointer: a row that is moved in the page would lose it. */
    listen() {
      const { list } = this;
      list.addEventListener('pointermove', ({ clientY }) => {
        if (this.dragging) list.insertBefore(this.dragging, rowBelow(list, this.dragging, clientY));
      });
      list.addEventListener('pointerup', () => this.drop(true));
      list.addEventListener('lostpointercapture', () => this.drop(false));
    }

    take(event, row) {
      const held = event.target.closest('button');
      if (event.button !== 0 || (held && !held.classList.contains('grip'))) return;
      if (event.pointerType !== 'mouse' && !held) return; // a finger on the name scrolls
      this.list.setPointerCapture(event.pointerId);
      this.dragging = row;
      row.classList.add('dragged');
    }

    drop(kept) {
      const row = this.dragging;
      if (!row) return;
      this.dragging = null;
      row.classList.remove('dragged');
      const order = [...this.list.children].map(({ dataset }) => dataset.filter);
      if (kept && !parameters.same(order, this.value)) this.commit(order, row.dataset.filter);
      else this.place();
    }

    // ---- showing ----

    /** Rows in the order in force; those that act marked. */
    place() {
      if (this.dragging) return;
      const active = parameters.activeFilters(store.params);
      const rows = this.value.map((name) => (this.rows.get(name) || {}).row || this.makeRow(name));
      if (rows.some((row, i) => row !== this.list.children[i])) this.list.replaceChildren(...rows);
      this.value.forEach((name, i) => {
        const { row, up, down } = this.rows.get(name);
        row.classList.toggle('on', active.includes(name));
        up.disabled = i === 0;
        down.disabled = i === rows.length - 1;
      });
    }

    show({ made }) {
      const { params } = store;
      const active = parameters.activeFilters(params);
      const before = made.order ? parameters.activeFilters(made) : active;
      const other = !parameters.same(before.filter((f) => active.includes(f)), active.filter((f) => before.includes(f)));
      const shown = JSON.stringify([this.value, active, other && before]);
      if (shown === this.shown) return;
      this.shown = shown;
      this.frame.showRest(this.value, store.order);
      this.place();
      this.made.hidden = !other;
      const names = before.map(glassbox.filterName).join(', ');
      if (other) this.made.textContent = glassbox.t('samp_made_with', names);
      this.name();
    }

    /** Names in the page's language, for eyes and for screen readers. */
    name() {
      const { t } = glassbox;
      for (const [filter, { grip, text, up, down }] of this.rows) {
        text.textContent = glassbox.filterName(filter);
        grip.title = t('samp_move', text.textContent);
        up.title = t('samp_up', text.textContent);
        down.title = t('samp_down', text.textContent);
        for (const button of [grip, up, down]) button.setAttribute('aria-label', button.title);
      }
    }

    translate() {
      this.frame.translate();
      this.shown = null;
    }
  }

  glassbox.order = { Order };
})();

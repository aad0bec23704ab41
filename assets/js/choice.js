/**
 * What could have come here, whole: candidates, the draw, who removed what, any other token, and what a person does
 * with them. What is shown of a position is told by sight.js.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el } = dom;

  // ---- step mode: what the panel speaks of when a reply has stopped ----

  const lastPosition = () => store.tokens.length - 1;

  /** Whether a next token can be chosen: nothing runs, the reply can go on and its last token is selected. */
  const canLookAhead = () => glassbox.actions.canResume() && store.selection.position === lastPosition();

  function setAhead(ahead) {
    if (choice.ahead === ahead) return;
    choice.ahead = ahead;
    glassbox.emit('choice');
  }

  /** Brings the panel into sight where it is a tab or a sheet. */
  function reveal() {
    glassbox.showSide('samp');
    if (glassbox.isPhone()) glassbox.setSheet(true);
  }

  // ---- all of it ----

  class Choice {
    constructor() {
      this.stage = null;
      this.held = null;
      this.next = null;
      this.refocus = false;
      this.busy = false;
      this.sight = new glassbox.sight.Sight();
      this.build();
      this.listen();
      this.update = dom.debounceFrame(() => this.updateNow());
    }

    build() {
      const { Switches } = glassbox.switches;
      this.switches = new Switches(
        (next) => this.lookAhead(next),
        (now) => this.reshape(now),
      );
      this.list = new glassbox.distribution.Candidates((view, token) => this.choose(view, { token }));
      this.length = new glassbox.distribution.Length(
        (rows) => this.setRows(rows),
        () => this.search(),
      );
      this.waterfall = new glassbox.waterfall.Waterfall((stage) => this.showStage(stage));
      this.pick = new glassbox.pick.Pick(
        (what, count) => this.choose(this.view, what, count),
        this.length.any,
      );
      this.assemble();
    }

    assemble() {
      const head = glassbox.distribution.makeHead();
      this.title = head.firstChild;
      this.act = el('button', 'act');
      this.act.type = 'button';
      this.act.addEventListener('click', () => this.goOn());
      const drawn = el('div', 'dr');
      this.draw = glassbox.draw.makeDraw(drawn, this.act);
      this.box = el('section', 'dist');
      const { when, line, why } = this.switches;
      this.box.append(when.node, line, head, why, this.list.node, this.length.node);
      this.box.append(this.pick.node, drawn, this.waterfall.node);
    }

    listen() {
      // a list that changed under the pointer would fork on a token that nobody aimed at
      this.list.node.addEventListener('pointermove', (event) => this.hold(event.pointerType === 'mouse'));
      this.list.node.addEventListener('pointerleave', () => this.hold(false));
    }

    hold(on) {
      const { selection, streaming } = store;
      const held =
        on && streaming && selection.follow ? (this.held ?? (this.view || {}).position ?? null) : null;
      if (held === this.held) return;
      this.held = held;
      this.updateNow();
    }

    // ---- what a person does ----

    lookAhead(next) {
      setAhead(next);
      this.updateNow();
    }

    reshape(now) {
      this.sight.asRecorded = !now;
      this.updateNow();
    }

    setRows(rows) {
      this.sight.rows = Math.max(glassbox.reshape.LISTED, rows);
      this.updateNow();
    }

    showStage(stage) {
      if (stage === this.stage) return;
      this.stage = stage;
      this.drawList();
    }

    /** Goes on from the shown position with a token or a text; in step mode so many tokens only. */
    choose(view, what, count = 1) {
      if (!view || this.sight.waiting || view.how === 'given') return undefined;
      if (view.how !== 'ahead' && what.token === view.id) return undefined;
      this.held = null;
      return this.run(() =>
        glassbox.actions.fork(view.position, what, view.how === 'ahead' ? count : undefined),
      );
    }

    /** The draw's own way on: from here with the settings in force, or one token further. */
    goOn() {
      const { view } = this;
      if (!view || this.sight.waiting) return undefined;
      const { fork, resume } = glassbox.actions;
      return this.run(() => (view.how === 'ahead' ? resume(1) : fork(view.position)));
    }

    /** Nothing else is chosen until the server has taken this; in step mode the focus then finds the new list. */
    async run(action) {
      if (this.busy) return;
      this.busy = true;
      this.refocus = choice.ahead;
      await action();
      this.busy = false;
      this.update();
    }

    search() {
      if (!this.view) return;
      if (!choice.ahead) glassbox.select({ position: this.view.position });
      this.pick.open();
    }

    // ---- what is shown ----

    /** @returns {View|null} */
    get view() {
      return this.sight.view;
    }

    /** Step mode ends when the reply has ended or another token is selected. */
    settle() {
      if (choice.ahead && !store.streaming && !canLookAhead()) setAhead(false);
    }

    updateNow() {
      if (!store.model) return;
      this.settle();
      const { sight } = this;
      const position = this.held ?? store.selection.position;
      sight.look(position, { ahead: choice.ahead, held: this.held !== null });
      this.box.classList.toggle('wait', sight.waiting);
      this.box.classList.toggle('held', this.held !== null);
      this.box.classList.toggle('none', !sight.view);
      this.switches.show(sight, store.tokens[position], { ahead: choice.ahead, offered: canLookAhead() });
      if (!sight.waiting) this.drawAll();
    }

    drawAll() {
      const { view } = this;
      this.drawList();
      this.length.show(view);
      this.drawAct();
      this.draw(view);
      this.waterfall.show(view);
      this.pick.show(view && view.how !== 'given' ? view : null);
      this.follow(view);
    }

    /** In step mode the focus goes to the first candidate of each new choice, if it was in the list. */
    follow(view) {
      const next = view && view.how === 'ahead' ? view.position : null;
      if (next === this.next) return;
      this.next = next;
      if (next !== null && (this.refocus || this.list.hasFocus())) {
        this.list.focusFirst();
        this.switches.when.node.scrollIntoView({ block: 'nearest' });
      }
      this.refocus = false;
    }

    drawList() {
      const { view } = this;
      const at = view && view.full ? view.stages.findIndex(({ name }) => name === this.stage) : -1;
      const stage = at < 0 ? null : at;
      this.title.textContent = this.titleText(view, stage);
      const { how = '', position = '', full = false } = view || {};
      Object.assign(this.list.node.dataset, { how, position, full, stage: stage === null ? '' : this.stage });
      this.list.show(view, { limit: this.length.rows, stage });
      this.waterfall.mark(stage === null ? null : this.stage);
      this.box.classList.toggle('staged', stage !== null);
    }

    titleText(view, stage) {
      const { t } = glassbox;
      if (stage === 0) return t('samp_model_said');
      if (stage) return t('samp_after_stage', glassbox.waterfall.stageName(view.stages[stage].name));
      if (this.held !== null) return t('samp_held', this.held);
      return t(choice.ahead ? 'samp_could_next' : 'samp_could');
    }

    drawAct() {
      const key = { now: 'samp_continue', ahead: 'samp_draw' }[(this.view || {}).how];
      this.act.hidden = !key;
      if (!key) return;
      this.act.dataset.action = this.view.how === 'ahead' ? 'draw' : 'continue';
      this.act.textContent = glassbox.t(key);
    }

    translate() {
      dom.translate(this.box);
      this.pick.translate();
      for (const node of this.box.querySelectorAll('[data-label]')) {
        node.setAttribute('aria-label', glassbox.t(node.dataset.label));
      }
      this.update();
    }
  }

  // ---- the page's way in ----

  /** @type {Choice|null} */ let shown = null;

  /** Puts all of it into `container`; called while the sampling panel is mounted. */
  function mount(container) {
    const made = new Choice();
    shown = made;
    container.append(made.box);
    for (const topic of ['tokens', 'selection', 'state', 'shape', 'choice']) glassbox.on(topic, made.update);
    // a control that moves re-shapes; the recorded conversation is first shown as it was
    for (const [topic, asRecorded] of [
      ['hello', () => store.example],
      ['params', () => false],
    ]) {
      glassbox.on(topic, () => {
        made.sight.asRecorded = asRecorded();
        made.update();
      });
    }
    glassbox.on('lang', () => made.translate());
    made.translate();
  }

  /** Step mode: what could come next, for a reply that has stopped; the first candidate gets the focus. */
  function showNext() {
    if (!shown || !glassbox.actions.canResume()) return;
    glassbox.select({ position: lastPosition(), follow: true });
    reveal();
    setAhead(true);
    Object.assign(shown, { refocus: true, next: null });
    shown.updateNow();
  }

  /** Shows the panel at a position. */
  function look(position) {
    setAhead(false);
    glassbox.select({ position });
    reveal();
  }

  /** Opens the search for another token at a position. */
  function search(position) {
    if (!shown) return;
    look(position);
    shown.updateNow();
    shown.search();
  }

  const choice = { ahead: false, mount, showNext, search, look };
  glassbox.choice = choice;
})();

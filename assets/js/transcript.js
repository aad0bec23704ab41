/**
 * The conversation as bubbles of token spans. Append-only while text streams: a token adds one span, a cut
 * removes what follows it. Template tokens have no span, except the end token that the model drew itself.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { el, iconButton, translate } = glassbox.dom;

  const EDITABLE = { user: 'edit', system: 'edit_system', text: 'edit_text' }; // role -> what its pencil says
  const BANDS = 3; // looks of the settings underline; more settings go round
  const NEAR = 4; // tokens; a flag so close to the one before it is a tick: a slider that is dragged leaves many

  /** @typedef {{m: number, role: string, node: HTMLElement, txt: HTMLElement, meta: HTMLElement, figs: HTMLElement,
   *   ends: HTMLElement, positions: number[], stats: object, tps: number, finish: string|null}} Bubble */

  const isShown = (token) => token.role !== 'template' || sampled(token);

  /** A token of the conversation: it can be found by its position. */
  function spanOf(token) {
    const span = glassbox.tokenSpan(token);
    Object.assign(span.dataset, { pos: token.i, role: token.role });
    if (sampled(token)) dressSampled(span, token);
    return span;
  }

  function dressSampled(span, token) {
    span.dataset.logprob = token.lp.toFixed(4);
    if (token.par != null) span.classList.add(`b${glassbox.bandOf(token.par) % BANDS}`);
  }

  function linkButton(key, action) {
    const button = el('button', 'link', glassbox.t(key));
    button.type = 'button';
    button.addEventListener('click', action);
    return button;
  }

  class Transcript {
    constructor(log) {
      this.log = log;
      /** @type {Bubble[]} */ this.bubbles = [];
      /** @type {HTMLElement[]} span of each position; holes where a token is not shown */ this.spans = [];
      this.shown = 0;
    }

    /** Makes the page agree with the store from token `from` on. */
    update(from) {
      if (from < this.shown) this.cut(from);
      for (let i = this.shown; i < store.tokens.length; i++) this.add(store.tokens[i]);
      this.shown = store.tokens.length;
    }

    cut(from) {
      while (this.bubbles.length && this.last.positions[0] >= from) this.bubbles.pop().node.remove();
      const bubble = this.last;
      if (bubble) {
        while (bubble.positions.length && bubble.positions.at(-1) >= from) bubble.positions.pop();
        const kept = this.spans[bubble.positions.at(-1)];
        while (bubble.txt.lastChild !== kept) bubble.txt.lastChild.remove();
        bubble.stats = new glassbox.Stats(bubble.positions.map((i) => store.tokens[i]));
        this.drawMeta(bubble);
      }
      this.spans.length = from;
      this.shown = from;
    }

    get last() {
      return this.bubbles.at(-1);
    }

    add(token) {
      if (!isShown(token)) return;
      const bubble = this.bubbleOf(token);
      const change = this.settingsFlag(token);
      if (change) bubble.txt.append(this.flag(bubble, token, change));
      const span = spanOf(token);
      bubble.txt.append(span);
      bubble.positions.push(token.i);
      bubble.stats.add(token);
      this.spans[token.i] = span;
    }

    /** The bubble a token belongs to; the end token that the model drew stays in the bubble it ends. */
    bubbleOf(token) {
      const { last } = this;
      const ends = token.role === 'template';
      if (last && last.role === 'text') return last; // the person and the model write it by turns
      if (last && (ends || (last.role === token.role && last.m === token.m))) return last;
      const bubble = this.newBubble(token.m, ends ? 'assistant' : token.role, sampled(token));
      this.bubbles.push(bubble);
      if (last) this.drawMeta(last);
      return bubble;
    }

    /** `drawn`: by this model, whose name it then bears; words that were carried over may be another one's. */
    newBubble(m, role, drawn) {
      const node = el('div', `msg ${role}`);
      node.dataset.m = m;
      const who = el('div', 'who');
      const name = el('b');
      if (role === 'assistant' && drawn) name.textContent = this.replyName();
      else name.dataset.t = `role_${role}`;
      who.append(name);
      const txt = el('div', 'txt');
      const meta = el('div', 'meta num');
      const figs = el('span', 'figs');
      const ends = el('span', 'ends');
      meta.append(figs, ends);
      meta.hidden = true;
      node.append(who, txt, meta);
      if (role in EDITABLE) who.append(this.editButton(role, node));
      translate(node);
      this.log.append(node);
      const parts = { m, role, node, txt, meta, figs, ends };
      return { ...parts, positions: [], stats: new glassbox.Stats(), flagged: NaN, tps: 0, finish: null };
    }

    /** A reply is signed with the first word of the model's name. */
    replyName() {
      const name = (store.model && store.model.name) || '';
      return name.split(/[-_ ./]/).find(Boolean) || glassbox.t('role_assistant');
    }

    editButton(role, node) {
      const open = () => {
        const bubble = this.bubbles.find((one) => one.node === node);
        glassbox.openEditor({ ...bubble, text: this.textOf(bubble) });
      };
      return iconButton('edit', EDITABLE[role], open);
    }

    /** 'T 0.7 → 0' where the settings differ from those of the sampled token before. */
    settingsFlag(token) {
      if (token.par == null) return '';
      let before = token.i - 1;
      while (before >= 0 && store.tokens[before].par == null) before--;
      if (before < 0 || store.tokens[before].par === token.par) return '';
      return glassbox.settingsChange(store.settings[store.tokens[before].par], store.settings[token.par]);
    }

    /** The change in a small box; only a tick where the one before it is near. */
    flag(bubble, token, change) {
      const since = token.i - bubble.flagged;
      const near = since > 0 && since < NEAR;
      const node = el('span', near ? 'flag tick' : 'flag num', near ? '' : change);
      node.title = change;
      bubble.flagged = token.i;
      return node;
    }

    /** What a bubble says, without special tokens; ready for the clipboard or the editor. */
    textOf(bubble) {
      return bubble.positions
        .map((i) => store.tokens[i])
        .filter((token) => !token.sp)
        .map((token) => token.s)
        .join('');
    }

    // ---- the line under a reply ----

    drawMeta(bubble) {
      const { stats } = bubble;
      const isLast = bubble === this.last;
      const live = isLast && store.streaming && !store.samples && !['user', 'system'].includes(bubble.role);
      bubble.node.classList.toggle('live', live);
      bubble.meta.hidden = !stats.n;
      if (!stats.n) return;
      if (live) bubble.tps = store.tps;
      if (isLast) bubble.finish = store.finish;
      glassbox.drawFigures(bubble.figs, glassbox.figures(stats, bubble.tps));
      bubble.ends.replaceChildren();
      if (!live) this.drawEnd(bubble, isLast);
    }

    /** Why the reply ended and what can be done with it; only one that was interrupted has no reason of its own. */
    drawEnd(bubble, isLast) {
      const last = store.tokens[bubble.positions.at(-1)];
      const finish = last.finish || bubble.finish || 'stopped';
      bubble.ends.append(el('span', `finish ${finish}`, glassbox.t(`finish_${finish}`)));
      if (isLast && glassbox.actions.canResume()) {
        bubble.ends.append(linkButton('continue', () => glassbox.actions.resume()));
        if (glassbox.choice) bubble.ends.append(linkButton('choose_next', () => glassbox.choice.showNext()));
      }
      const copy = () => glassbox.copyText(this.textOf(bubble), 'copied');
      bubble.ends.append(iconButton('copy', 'copy', copy));
      translate(bubble.ends);
    }

    /** Redraws the lines under the last `n` bubbles: the language changed, or a reply goes on or ended. */
    drawMetas(n) {
      for (const bubble of this.bubbles.slice(-n)) this.drawMeta(bubble);
    }
  }

  glassbox.Transcript = Transcript;
})();

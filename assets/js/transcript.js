/**
 * The conversation as bubbles of token spans. Append-only while text streams: a token adds one span, a cut
 * removes what follows it. Template tokens have no span, except the end token that the model drew itself.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { el, iconButton, translate, bits, tokenText } = glassbox.dom;

  const BANDS = 3; // looks of the settings underline; more settings go round

  /** @typedef {{m: number, role: string, node: HTMLElement, txt: HTMLElement, meta: HTMLElement,
   *   positions: number[], tps: number, finish: string|null}} Bubble */

  const isShown = (token) => token.role !== 'template' || sampled(token);

  function textNodes(text) {
    const nodes = [];
    text.split('\n').forEach((line, at) => {
      if (at) nodes.push(el('span', 'nl'), '\n');
      if (line) nodes.push(line);
    });
    return nodes;
  }

  /**
   * One token: its leading spaces stay outside the tint, its newlines are drawn, parts of a character
   * numbered.
   */
  function tokenSpan(token) {
    const span = el('span', 't');
    Object.assign(span.dataset, { pos: token.i, role: token.role });
    const text = token.part && token.part[1] === 0 ? tokenText(token) : token.s;
    const word = text.replace(/^ +/, '');
    if (word && word !== text) span.append(el('span', 'lead', text.slice(0, text.length - word.length)));
    const ink = el('span', 'w');
    ink.append(...textNodes(word || text));
    if (token.part && token.part[1]) ink.dataset.part = token.part.join('/');
    span.append(ink);
    if (token.sp) span.classList.add('special');
    if (sampled(token)) dressSampled(span, token);
    return span;
  }

  function dressSampled(span, token) {
    span.dataset.logprob = token.lp.toFixed(4);
    if (token.par != null) span.classList.add(`b${glassbox.bandOf(token.par) % BANDS}`);
    if (token.u === null) span.classList.add('hand');
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
      if (change) bubble.txt.append(el('span', 'flag num', change));
      const span = tokenSpan(token);
      bubble.txt.append(span);
      bubble.positions.push(token.i);
      this.spans[token.i] = span;
    }

    /** The bubble a token belongs to; the end token that the model drew stays in the bubble it ends. */
    bubbleOf(token) {
      const { last } = this;
      const ends = token.role === 'template';
      if (last && (ends || (last.role === token.role && last.m === token.m))) return last;
      const bubble = this.newBubble(token.m, ends ? 'assistant' : token.role);
      this.bubbles.push(bubble);
      if (last) this.drawMeta(last);
      return bubble;
    }

    newBubble(m, role) {
      const node = el('div', `msg ${role}`);
      node.dataset.m = m;
      const who = el('div', 'who');
      const name = el('b');
      if (role === 'assistant') name.textContent = this.replyName();
      else name.dataset.t = `role_${role}`;
      who.append(name);
      const txt = el('div', 'txt');
      const meta = el('div', 'meta num');
      node.append(who, txt, meta);
      if (role === 'user' || role === 'system') who.append(this.editButton(role, node));
      translate(node);
      this.log.append(node);
      return { m, role, node, txt, meta, positions: [], tps: 0, finish: null };
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
      return iconButton('edit', role === 'system' ? 'edit_system' : 'edit', open);
    }

    /** 'T 0.7 → 0' where the settings differ from those of the sampled token before. */
    settingsFlag(token) {
      if (token.par == null) return '';
      let before = token.i - 1;
      while (before >= 0 && store.tokens[before].par == null) before--;
      if (before < 0 || store.tokens[before].par === token.par) return '';
      return glassbox.settingsChange(store.settings[store.tokens[before].par], store.settings[token.par]);
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
      const drawn = bubble.positions.map((i) => store.tokens[i]).filter(sampled);
      const isLast = bubble === this.last;
      const live = isLast && store.streaming && !['user', 'system'].includes(bubble.role);
      bubble.node.classList.toggle('live', live);
      bubble.meta.replaceChildren();
      if (!drawn.length) return;
      if (live) bubble.tps = store.tps;
      if (isLast) bubble.finish = store.finish;
      bubble.meta.append(...this.figures(drawn, bubble.tps).map((text) => el('span', '', text)));
      if (live) return;
      // only a reply that was interrupted has no reason of its own
      const finish = drawn.at(-1).finish || bubble.finish || 'stopped';
      bubble.meta.append(el('span', `finish ${finish}`, glassbox.t(`finish_${finish}`)));
      this.addReplyActions(bubble, isLast);
    }

    /** How many tokens the model drew, how surprising they were, how fast they came if that is known. */
    figures(drawn, tps) {
      const { t } = glassbox;
      const surprise = drawn.reduce((sum, token) => sum - bits(token.lp), 0) / drawn.length;
      const count = drawn.length === 1 ? t('meta_token') : t('meta_tokens', drawn.length);
      const figures = [count, t('meta_bits', surprise.toFixed(2))];
      return tps ? [...figures, t('meta_tps', tps.toFixed(1))] : figures;
    }

    addReplyActions(bubble, isLast) {
      if (isLast && glassbox.actions.canResume()) {
        const more = el('button', 'link', glassbox.t('continue'));
        more.type = 'button';
        more.addEventListener('click', () => glassbox.actions.resume());
        bubble.meta.append(more);
      }
      bubble.meta.append(iconButton('copy', 'copy', () => glassbox.copyText(this.textOf(bubble), 'copied')));
      translate(bubble.meta);
    }

    /** Redraws the lines under the last `n` bubbles: the language changed, or a reply goes on or ended. */
    drawMetas(n) {
      for (const bubble of this.bubbles.slice(-n)) this.drawMeta(bubble);
    }
  }

  glassbox.Transcript = Transcript;
})();

/**
 * The lines above the candidates: this token or the next one, as recorded or with the settings in force now, and what
 * is to be known of a token that was given.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom } = glassbox;
  const { el, setText } = dom;

  const GIVEN = { user: 'pop_given_user', text: 'pop_given_user', assistant: 'pop_given_reply', template: 'pop_given_template' };

  /** Two buttons of which one is pressed; `set(second)` is called with whether it is the second. */
  function makeSwitch(label, keys, set) {
    const node = el('div', 'seg');
    node.setAttribute('role', 'group');
    node.dataset.label = label;
    keys.forEach((key, i) => {
      const button = el('button');
      button.type = 'button';
      button.dataset.t = key;
      button.addEventListener('click', () => set(i === 1));
      node.append(button);
    });
    const press = (second) =>
      [...node.children].forEach((child, i) =>
        child.setAttribute('aria-pressed', String(second === (i === 1))),
      );
    return { node, press };
  }

  /** Who gave a token, and how likely the model would have found it. */
  function givenText(token, view) {
    const { t } = glassbox;
    const who = t(token.sp ? 'pop_given_template' : GIVEN[token.role] || 'pop_given');
    const candidate = view && view.cand.find((c) => c[0] === view.id);
    if (!candidate) return who;
    const bits = candidate[2] > 0 ? dom.bits(-Math.log(candidate[2])).toFixed(1) : '∞';
    return `${who} ${t('samp_given_rank', dom.int(view.rank), bits)}`;
  }

  class Switches {
    /**
     * @param {(next: boolean) => void} lookAhead
     * @param {(now: boolean) => void} reshape
     */
    constructor(lookAhead, reshape) {
      this.when = makeSwitch('samp_when', ['samp_this', 'samp_next_one'], lookAhead);
      this.when.node.id = 'choice-when';
      this.how = makeSwitch('samp_how', ['samp_recorded', 'samp_now'], reshape);
      this.words = el('p');
      this.words.setAttribute('role', 'status');
      this.line = el('div', 'how');
      this.line.id = 'reshaped';
      this.line.append(this.words, this.how.node);
      this.why = el('p', 'given');
    }

    /**
     * @param {Sight} sight what is shown
     * @param {object|undefined} token what stands at its position
     * @param {{ahead: boolean, offered: boolean}} next whether the next token is shown, and can be
     */
    show(sight, token, { ahead, offered }) {
      const { differs, asRecorded, problem } = sight;
      this.when.node.hidden = !ahead && !offered;
      this.when.press(ahead);
      this.line.hidden = !differs;
      this.how.press(!asRecorded);
      if (differs) setText(this.words, problem || glassbox.t(asRecorded ? 'samp_as_made' : 'samp_reshaped'));
      setText(this.why, this.whyText(sight, token, ahead));
      this.why.hidden = !this.why.textContent;
    }

    /** Why there are no candidates, or what is to be known of a token that was given. */
    whyText({ view, waiting, problem, differs }, token, ahead) {
      if (problem && !differs) return problem;
      if (!token) return glassbox.t('samp_nothing');
      return ahead || glassbox.sampled(token) ? '' : givenText(token, waiting ? null : view);
    }
  }

  glassbox.switches = { Switches };
})();

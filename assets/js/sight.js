/**
 * What is shown of a position: a token as it was recorded; its distribution re-shaped, once nothing runs and the
 * settings are others than those that made it; what the model would have said where a token was given; or what could
 * come next.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, reshape } = glassbox;

  const REST_MS = 80; // before a newly selected token is asked about

  /** Keeps what is shown, which stays in sight while an answer that will take its place is on its way. */
  class Sight {
    constructor() {
      /** @type {View|null} */ this.view = null;
      this.rows = reshape.LISTED; // candidates wanted
      this.asRecorded = false; // the record is wanted though the settings are others now
      this.differs = false; // whether they are
      this.waiting = false; // what is shown belongs to an earlier position
      this.problem = '';
      this.epoch = 0;
    }

    /**
     * Looks at a position anew.
     * @param {number} position
     * @param {{ahead: boolean, held: boolean}} mode step mode; a position that is held while the stream goes on
     */
    look(position, mode) {
      this.differs = false;
      const { view, waiting = false, problem = '' } = this.see(position, mode);
      Object.assign(this, { view, waiting, problem, epoch: store.epoch });
    }

    see(position, { ahead, held }) {
      const { streaming, selection, tokens } = store;
      if (ahead && !streaming) return this.asked(tokens.length, 'ahead');
      if (ahead && this.view && tokens.length <= this.view.position + 1)
        return { view: this.view, waiting: true };
      const token = tokens[position];
      const quiet = !held && !(streaming && selection.follow);
      if (!token) return { view: null };
      if (!glassbox.sampled(token))
        return quiet && position > 0 ? this.asked(position, 'given') : { view: null };
      this.differs = !streaming && reshape.differs(store.settings[token.par]);
      return this.differs && !this.asRecorded ? this.reshaped(token) : this.recorded(token, quiet);
    }

    ask(position, base) {
      const rest = this.view && this.view.position === position ? 0 : REST_MS;
      return reshape.ask({ position, base, n: this.rows, rest });
    }

    /** A view from the server alone. */
    asked(position, how) {
      const answer = this.ask(position, 'now');
      if (!answer) return { view: this.view, waiting: true };
      return answer.error ? { view: null, problem: answer.error } : { view: reshape.ofAnswer(answer, how) };
    }

    reshaped(token) {
      const { view, epoch } = this;
      const answer = this.ask(token.i, 'now');
      if (answer && !answer.error) return { view: reshape.ofAnswer(answer, 'now') };
      const before = view && view.how === 'now' && view.position === token.i && epoch === store.epoch;
      return { view: before ? view : reshape.ofRecord(token), problem: answer && answer.error };
    }

    recorded(token, quiet) {
      const answer = quiet && this.ask(token.i, 'made');
      if (!quiet) reshape.forget();
      return { view: reshape.ofRecord(token, answer && !answer.error ? answer : null) };
    }
  }

  glassbox.sight = { Sight };
})();

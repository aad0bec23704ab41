/**
 * The form that a reply must have: a JSON schema, a regular expression or a list of choices. What is typed acts when
 * it is applied, so that a half-written schema is never in force; each kind begins with an example that works.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, field, parameters } = glassbox;
  const { el } = dom;

  const SCHEMA = {
    type: 'object',
    properties: { name: { type: 'string', maxLength: 20 }, age: { type: 'integer', minimum: 0, maximum: 120 } },
    required: ['name', 'age'],
    additionalProperties: false,
  };
  const EXAMPLES = {
    json_schema: JSON.stringify(SCHEMA, null, 1),
    regex: "(Yes|No), because [a-z ,']{10,60}\\.",
    choice: 'red\ngreen\nblue',
  };
  const OFF = 'off';

  function buildKinds(choose) {
    const seg = el('div', 'seg kinds');
    seg.setAttribute('role', 'group');
    for (const kind of [OFF, ...Object.keys(EXAMPLES)]) {
      const button = el('button');
      button.type = 'button';
      button.dataset.kind = kind;
      button.dataset.t = kind === OFF ? 'samp_off' : `set_grammar_${kind}`;
      button.addEventListener('click', () => choose(kind));
      seg.append(button);
    }
    return seg;
  }

  function textButton(key, act) {
    const button = el('button', 'btn');
    button.type = 'button';
    button.dataset.t = key;
    button.addEventListener('click', act);
    return button;
  }

  class Grammar {
    constructor() {
      this.frame = new field.Field('grammar', { heading: true });
      this.box = this.frame.box;
      this.kind = OFF;
      this.texts = {};
      this.kinds = buildKinds((kind) => this.choose(kind));
      this.area = el('textarea');
      this.apply = textButton('samp_apply', () => this.send());
      this.example = textButton('samp_example', () => this.write(EXAMPLES[this.kind]));
      this.status = el('span', 'mut');
      this.made = el('p', 'made');
      this.place();
      this.area.addEventListener('input', () => this.typed());
      this.area.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.send();
      });
      this.frame.reset.addEventListener('click', () => {
        this.kinds.firstChild.focus();
        this.choose(OFF);
      });
    }

    place() {
      const { area } = this;
      area.id = 'grammar-input';
      area.rows = 7;
      area.spellcheck = false;
      area.dataset.label = 'samp_grammar_text';
      area.setAttribute('aria-describedby', 'grammar-problem');
      this.apply.classList.add('strong');
      this.apply.id = 'grammar-apply';
      this.example.id = 'grammar-example';
      this.body = el('div', 'form');
      const row = el('div', 'row');
      row.append(this.apply, this.example, this.status);
      this.body.append(area, row);
      this.frame.fill(this.kinds, this.body, this.made);
    }

    /** Off acts at once; a kind only shows its text. */
    choose(kind) {
      this.complain('');
      this.kind = kind;
      if (kind === OFF) glassbox.actions.setParams({ grammar: null });
      else this.area.value = this.texts[kind] ?? EXAMPLES[kind];
      this.showBody();
    }

    write(text) {
      this.area.value = text;
      this.area.focus();
      this.typed();
    }

    typed() {
      this.texts[this.kind] = this.area.value;
      this.complain('');
      this.showBody();
    }

    send() {
      this.complain('');
      this.texts[this.kind] = this.area.value;
      if (!this.area.value.trim()) return this.complain(glassbox.t('samp_empty_grammar'));
      return glassbox.actions.setParams({ grammar: [this.kind, this.area.value] });
    }

    /** What was refused stays in the box to be mended, while the grammar in force is another one or none. */
    complain(text) {
      this.held = Boolean(text);
      this.frame.complain(text);
      this.area.setAttribute('aria-invalid', String(this.held));
    }

    /** Takes over a grammar that came into force otherwise: a preset, another conversation. */
    follow(grammar) {
      if (this.held) return;
      [this.kind, this.area.value] = grammar || [OFF, ''];
      if (grammar) [, this.texts[this.kind]] = grammar;
    }

    showBody() {
      const { grammar } = store.params;
      for (const button of this.kinds.children) {
        button.setAttribute('aria-pressed', String(button.dataset.kind === this.kind));
      }
      this.body.hidden = this.kind === OFF;
      const inForce = parameters.same(grammar, [this.kind, this.area.value]);
      this.status.textContent = glassbox.t(inForce ? 'samp_in_force' : 'samp_not_in_force');
      this.apply.disabled = inForce;
    }

    show({ made, ignored }) {
      const { grammar } = store.params;
      const skipped = ignored.includes('grammar');
      const other = 'grammar' in made && !parameters.same(made.grammar, grammar);
      const shown = JSON.stringify([grammar, other && made.grammar, skipped, store.streaming && skipped]);
      if (shown === this.shown) return;
      this.shown = shown;
      if (!parameters.same(grammar, this.seen)) this.follow(grammar);
      this.seen = grammar;
      this.frame.showRest(grammar, null);
      this.frame.showIgnored(skipped);
      this.showBody();
      this.made.hidden = !other;
      if (other) this.made.textContent = this.madeWith(made.grammar);
    }

    madeWith(grammar) {
      const { t } = glassbox;
      const text = grammar ? `${t(`set_grammar_${grammar[0]}`)} ${grammar[1]}` : t('samp_nothing_listed');
      return t('samp_made_with', text);
    }

    translate() {
      this.frame.translate();
      this.shown = null;
    }
  }

  glassbox.grammar = { Grammar };
})();

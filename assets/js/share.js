/** The Share button and its menu: a link to this sight, the conversation as a file, a file opened. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el, icon } = glassbox.dom;

  const ENTRIES = {
    link: () => glassbox.copyText(glassbox.address(), 'copied_link'),
    save: () => glassbox.files.save(),
    open: () => glassbox.files.choose(),
  };

  function entry(name, close) {
    const { t } = glassbox;
    const button = el('button', 'menu-item');
    button.type = 'button';
    button.id = `share-${name}`;
    button.append(icon(name), el('span', '', t(`share_${name}`)), el('small', '', t(`share_note_${name}`)));
    button.addEventListener('click', () => {
      close();
      ENTRIES[name]();
    });
    return button;
  }

  /** Up and down walk through the menu. */
  function onKey(event, node) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by) return;
    const entries = [...node.querySelectorAll('.menu-item')];
    const at = entries.indexOf(document.activeElement) + by;
    entries[(at + entries.length) % entries.length].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  function fill(node, close) {
    node.append(...Object.keys(ENTRIES).map((name) => entry(name, close)));
    node.firstChild.dataset.first = '';
    node.addEventListener('keydown', (event) => onKey(event, node));
  }

  /** The button that stands in the bar. */
  function shareButton() {
    const button = el('button', 'btn');
    button.type = 'button';
    button.id = 'share';
    button.dataset.tip = 'share_tip';
    button.setAttribute('aria-haspopup', 'dialog');
    const text = el('span');
    text.dataset.t = 'share';
    button.append(icon('share'), text);
    button.addEventListener('click', () =>
      glassbox.layers.openCard({
        id: 'share-menu',
        label: glassbox.t('share'),
        anchor: button,
        atEnd: true,
        fill,
      }),
    );
    return button;
  }

  glassbox.shareButton = shareButton;
})();

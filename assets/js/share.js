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

  function fill(node, close) {
    const { t } = glassbox;
    const entries = Object.entries(ENTRIES).map(([name, action]) => ({
      id: `share-${name}`,
      icon: name,
      text: t(`share_${name}`),
      note: t(`share_note_${name}`),
      action,
    }));
    glassbox.fillMenu(node, entries, close);
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

/**
 * The names of what is trained beside the dense network: IMP itself ("imp") and the controls and baselines that a
 * recipe may list under `controls`. In the order in which tables show them.
 */

/** Masks from scores of the weights at the rewind point, in one pool (paper 4.2). */
export const scoreNames = ['magnitude', 'snip', 'grasp', 'grasp-abs', 'synflow'] as const;
export type ScoreName = (typeof scoreNames)[number];

/**
 * Ablations of "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?" (paper 4.2): the mask permuted
 * within each layer, the mask with new initial weights, the weights pruned that the method would keep longest.
 */
export const ablations = ['shuffle', 'reinit', 'invert'] as const;
export type Ablation = (typeof ablations)[number];

/** Retraining after pruning other than by rewinding weights (paper 4.1), with an iteration of its own. */
export const retrainings = ['lr-rewind', 'finetune'] as const;
export type Retraining = 'rewind' | (typeof retrainings)[number];

export type Control =
  | 'random'
  | 'reinit'
  | (typeof retrainings)[number]
  | 'imp-invert'
  | 'random-global'
  | ScoreName
  | `${ScoreName}-${Ablation}`;
export type Branch = 'imp' | Control;

export const controlNames: Control[] = [
  'random',
  'reinit',
  ...retrainings,
  'imp-invert',
  'random-global',
  ...scoreNames.flatMap((score): Control[] => [
    score,
    ...ablations.map((ablation): Control => `${score}-${ablation}`),
  ]),
];
export const branchNames: Branch[] = ['imp', ...controlNames];

/** What a branch is made of. */
export interface BranchRule {
  /**
   * Whose masks: IMP's of the level; those of an iteration of its own, level after level; or those of scores at the
   * rewind point.
   */
  masks: 'imp' | 'own' | ScoreName | 'random-global';
  /** The masks' places permuted within each layer. */
  shuffled: boolean;
  /** What the method would keep longest is pruned first. */
  inverted: boolean;
  /** The weights of the rewind point, new initial ones, or the final ones of the training before. */
  weights: 'rewound' | 'fresh' | 'final';
  /** The learning rate from step k on: the schedule's, or constant at the schedule's last. */
  rate: 'schedule' | 'last';
}

/** @param retraining how IMP itself goes on after pruning. */
export function ruleOf(branch: Branch, retraining: Retraining): BranchRule {
  const rule = {
    masks: 'imp',
    shuffled: false,
    inverted: false,
    weights: 'rewound',
    rate: 'schedule',
  } as const;
  switch (branch) {
    case 'imp':
      return retraining === 'rewind' ? { ...rule, masks: 'own' } : ruleOf(retraining, retraining);
    case 'random':
      return { ...rule, shuffled: true };
    case 'reinit':
      return { ...rule, weights: 'fresh' };
    case 'lr-rewind':
      return { ...rule, masks: 'own', weights: 'final' };
    case 'finetune':
      return { ...rule, masks: 'own', weights: 'final', rate: 'last' };
    case 'imp-invert':
      return { ...rule, masks: 'own', inverted: true };
    case 'random-global':
      return { ...rule, masks: branch };
    default: {
      // "grasp-abs" has a hyphen of its own.
      const masks = scoreNames.find(
        (score) => branch === score || ablations.some((a) => branch === `${score}-${a}`),
      );
      const ablation = ablations.find((one) => branch === `${masks}-${one}`);
      return {
        ...rule,
        masks: masks as ScoreName,
        shuffled: ablation === 'shuffle',
        inverted: ablation === 'invert',
        weights: ablation === 'reinit' ? 'fresh' : 'rewound',
      };
    }
  }
}

import type { Recipe } from '../../lib/recipe/Recipe.js';
import { parseRecipe } from '../../lib/recipe/schema.js';

/** 60 updates of 784-20-12-10; the rewind point 25 lies on no cadence. */
export function tinyRecipe(
  changes: Partial<Recipe> = {},
  pruning: Partial<Recipe['pruning']> = {},
  training: Partial<Recipe['training']> = {},
): Recipe {
  return parseRecipe(
    {
      name: 'tiny',
      network: 'lenet-20-12',
      data: { set: 'mnist-10k', validation: 504 },
      rewind: ['25it', '0it'],
      ...changes,
      training: {
        steps: '60it',
        batch: 60,
        optimiser: { type: 'adam', learningRate: 2e-3 },
        evaluateEvery: 20,
        metricsEvery: 10,
        ...changes.training,
        ...training,
      },
      pruning: { levels: 2, fraction: 0.5, pooling: 'layerwise', rates: { 'fc3.weight': 0.25 }, ...pruning },
    },
    'test',
  );
}

"""The exercises' texts in Portuguese of Brazil, by the English ones, from which make_exercises.py makes exercicios.ipynb.

The terms are those of viz/language/glossary.md; formulas and names stay.
"""

TEXTS = {
    """\
# Ten exercises: from y = W h + b to JANET

In each you fill in a gradient, a rule or an equation. The cell below it judges your answer: it says **which term** is
wrong and what may be missing in it, and marks the edge of the graph in question.

Arrays are those of the program: one sequence is a row, so that y = W h + b on the slide is `h @ W + b` here. `dy` is
∂L/∂y, the gradient that arrives; it has the shape of y, as every gradient has the shape of what it is of.
`*` multiplies element by element, `a.T` is the transpose.""": """\
# Dez exercícios: de y = W h + b a JANET

Em cada um você preenche um gradiente, uma regra ou uma equação. A célula de baixo julga a sua resposta: diz **qual termo**
está errado e o que pode faltar nele, e marca a aresta do grafo em questão. Ela fala português onde o ambiente fala, ou
depois de `import viz; viz.language("pt")`.

Os arrays são os do programa: uma sequência é uma linha, de modo que y = W h + b do slide é aqui `h @ W + b`. `dy` é
∂L/∂y, o gradiente que chega; tem o formato de y, pois todo gradiente tem o formato daquilo de que é gradiente.
`*` multiplica elemento a elemento, `a.T` é a transposta.""",
    """\
## 1. One layer: y = h W + b

y has 2 numbers, h has 3. Given dy, what are dW, db and dh?""": """\
## 1. Uma camada: y = h W + b

y tem 2 números, h tem 3. Dado dy, quais são dW, db e dh?""",
    """\
## 2. The tanh: h = tanh(a)

Write da with dh and h alone.""": """\
## 2. A tanh: h = tanh(a)

Escreva da só com dh e h.""",
    """\
## 3. The sigmoid: f = σ(a)

Write da with df and f alone. How large can the slope be at most?""": """\
## 3. A sigmoide: f = σ(a)

Escreva da só com df e f. Qual é o maior valor que a derivada pode ter?""",
    """\
## 4. A rule of the table: y = a / b

The engine has one rule for each input of an operation. Write both for the quotient.""": """\
## 4. Uma regra da tabela: y = a / b

O motor tem uma regra para cada entrada de uma operação. Escreva as duas do quociente.""",
    """\
## 5. Two steps back through time

h_1 = tanh([h_0, x_1] W + b), h_2 = tanh([h_1, x_2] W + b), and the loss reads h_2. Given dh_2, write dh_1 and dW. The
first two rows of W belong to h, the other three to x.""": """\
## 5. Dois passos de volta no tempo

h_1 = tanh([h_0, x_1] W + b), h_2 = tanh([h_1, x_2] W + b), e a perda lê h_2. Dado dh_2, escreva dh_1 e dW. As duas
primeiras linhas de W são de h, as outras três de x.""",
    """\
## 6. The memory of the LSTM: c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t

Derive ∂L/∂f_t, ∂L/∂i_t, ∂L/∂c̃_t and ∂L/∂c_{t−1} from ∂L/∂c_t.""": """\
## 6. A memória da LSTM: c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t

Deduza ∂L/∂f_t, ∂L/∂i_t, ∂L/∂c̃_t e ∂L/∂c_{t−1} a partir de ∂L/∂c_t.""",
    """\
## 7. What the LSTM shows: h_t = o_t ⊙ tanh(c_t), with o_t = σ(a_o)

Derive ∂L/∂o_t, ∂L/∂a_o, and what the loss sends to c_t through h_t.""": """\
## 7. O que a LSTM mostra: h_t = o_t ⊙ tanh(c_t), com o_t = σ(a_o)

Deduza ∂L/∂o_t, ∂L/∂a_o e o que a perda envia a c_t por h_t.""",
    """\
## 8. Along the memory: c_1 = f_1 ⊙ c_0 + u_1, c_2 = f_2 ⊙ c_1 + u_2

What arrives at f_1 and at c_0, two steps back? What is left after 100 steps if every gate is 0.9? And 0.5?""": """\
## 8. Ao longo da memória: c_1 = f_1 ⊙ c_0 + u_1, c_2 = f_2 ⊙ c_1 + u_2

O que chega a f_1 e a c_0, dois passos atrás? O que resta depois de 100 passos, se todo portão é 0.9? E se é 0.5?""",
    """\
## 9. Fill in two equations of the GRU

The candidate sees the past through r, and z says how much of h is renewed. Fill in h̃ and h.""": """\
## 9. Preencha duas equações da GRU

O candidato vê o passado por r, e z diz quanto de h é renovado. Preencha h̃ e h.""",
    """\
## 10. JANET: the LSTM with its forget gate alone

s is what stands inside the forget gate, f = σ(s). What comes in is scaled by 1 − σ(s − β), a little more than was
forgotten. Write the step.""": """\
## 10. JANET: a LSTM só com o portão de esquecimento

s é o que está dentro do portão de esquecimento, f = σ(s). O que entra é escalado por 1 − σ(s − β), um pouco mais do que
foi esquecido. Escreva o passo.""",
    """\
Your cell is drawn, printed and compiled like any other: try `viz.equations(Answer10(4, 8, np.random.default_rng(0)))`.""": """\
Sua célula é desenhada, impressa e compilada como qualquer outra: experimente
`viz.equations(Answer10(4, 8, np.random.default_rng(0)))`.""",
}
